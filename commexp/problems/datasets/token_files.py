"""Tokens in the files that nanoGPT's scripts prepare: train.bin and val.bin, uint16, little-endian, without a header.

They may be larger than memory. meta.pkl, which lies beside them, is never opened.
Source: Karpathy, github.com/karpathy/nanoGPT.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from commexp.files import open_regular, reason

NAMES = ("train.bin", "val.bin")
BLOCK, BLOCKS = 2**20, 64  # the digest of a file covers its size and so many blocks of so many bytes
CHUNK = 2**24  # tokens that are looked at together
WANTED = "a folder with nanoGPT's train.bin and val.bin"


def is_prepared(folder: Path) -> bool:
    """Whether the folder holds one of the two files."""
    return any(os.path.lexists(folder / name) for name in NAMES)


def token_files(key: str, folder: Path) -> list[np.ndarray]:
    """Memory maps of the tokens, uint16. Raises FileNotFoundError for a missing file, ValueError for one that cannot be
    read, is empty, or has an odd number of bytes; with ``key``."""
    maps: list[np.ndarray] = []
    for name in NAMES:
        path = folder / name
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                if not size or size % 2:
                    raise ValueError(f"{size} bytes are no uint16 tokens")
                maps.append(np.memmap(file, dtype="<u2", mode="r"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{key}: {path} is missing; give {WANTED}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{key}: {path} cannot be read ({reason(error)}); give {WANTED}") from error
    return maps


def largest(tokens: np.ndarray) -> int:
    """The largest token, found piece by piece."""
    return max(int(tokens[i : i + CHUNK].max()) for i in range(0, len(tokens), CHUNK))


def tokens_sum(folder: Path) -> str:
    """16 hex digits of BLAKE2b of the sizes of both files and of their bytes; of a file of more than BLOCK * BLOCKS
    bytes only of BLOCKS blocks at equal distances, since to read all of it takes too long. Empty if one of them cannot
    be read."""
    whole = hashlib.blake2b(digest_size=8)
    for name in NAMES:
        try:
            with open_regular(folder / name) as file:
                size = os.fstat(file.fileno()).st_size
                whole.update(f"{size}\n".encode())
                for start in range(0, size, max(BLOCK, -(-size // BLOCKS))):
                    file.seek(start)
                    whole.update(file.read(BLOCK))
        except (OSError, ValueError):
            return ""
    return whole.hexdigest()
