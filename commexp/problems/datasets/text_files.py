"""Files of text: which ones a path means, their content, and the digest of it."""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from commexp.files import open_regular, reading, reason
from commexp.problems.datasets.files import place

LARGEST = 2**31  # bytes of all text together, which lies in memory
BLOCK = 2**20  # bytes that are read together
WANTED = "a UTF-8 file, a folder or a glob of such files, or a folder with train.bin and val.bin"
#: folders of Python's library that are tests, are added by installing packages, or are left out by some distributions
OTHERS = {
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "idlelib", "lib2to3", "distutils",
    "tkinter", "turtledemo", "ensurepip",
}  # fmt: skip
MADE = "_sysconfigdata"  # begins the names of files that describe the machine on which Python was built


class NotTextError(ValueError):
    """A file is not UTF-8 text."""


def read_texts(path: str | None) -> list[bytes]:
    """The texts of a file, which may be compressed (see files.unpacked); of all files in a folder, at any depth, that
    are UTF-8 text; or of the files that match a glob. None: the modules of Python's library. Texts are in the order of
    the file names; hidden files and empty ones are left out.

    Raises FileNotFoundError if nothing is there, ValueError for a file that is not UTF-8 text, cannot be read, or has,
    with those before it, more than LARGEST bytes, and for no text at all; with ``dataset.path``.
    """
    if path is None:
        return list(library())
    key, where = f"dataset.path={path}", place(None, path)
    if os.path.isdir(where):
        texts = _read_all(key, sorted(_inside(where)), packed=False, others=True)
    elif os.path.lexists(where):
        texts = _read_all(key, [where], packed=True, others=False)
    elif files := sorted(Path(f) for f in glob.glob(str(where), recursive=True) if not os.path.isdir(f)):
        texts = _read_all(key, files, packed=True, others=False)
    else:
        raise FileNotFoundError(f"{key}: {where} is missing; give {WANTED}")
    if not texts:
        raise ValueError(f"{key}: holds no UTF-8 text; give {WANTED}")
    return texts


def content_sum(texts: Iterable[bytes]) -> str:
    """The first 16 hex digits of blake2b over the texts' blake2b sums."""
    whole = hashlib.blake2b()
    for text in texts:
        whole.update(hashlib.blake2b(text).digest())
    return whole.hexdigest()[:16]


@cache
def library() -> tuple[bytes, ...]:
    """The modules of Python's library, without tests and without what differs between machines with the same version;
    read once in a process. Raises FileNotFoundError if the sources are not installed."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(file for file in _inside(folder, OTHERS) if file.suffix == ".py" and not file.name.startswith(MADE))
    texts = _read_all("dataset.path=null", files, packed=False, others=True)
    if not texts:
        raise FileNotFoundError(f"dataset.path=null: {folder} has no sources of Python's library; give {WANTED}")
    return tuple(texts)


def _inside(folder: Path, left_out: Iterable[str] = ()) -> Iterator[Path]:
    """The regular files in a folder at any depth, without hidden ones and without the folders ``left_out``; it does not
    follow links to folders."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in left_out]
        yield from (Path(here, name) for name in files if not name.startswith(".") and os.path.isfile(f"{here}/{name}"))


def _read_all(key: str, files: Sequence[Path], packed: bool, others: bool) -> list[bytes]:
    """``packed``: whether files may be compressed. ``others``: whether files that are not UTF-8 text are left out."""
    texts, size = [], 0
    for file in files:
        try:
            if packed:
                with reading(file) as content:
                    text = _decodable(content, LARGEST - size)
            else:
                with open_regular(file) as content:
                    text = _decodable(content, LARGEST - size)
        except NotTextError as error:
            if others:
                continue
            raise ValueError(f"{key}: {file} {error}; give {WANTED}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{key}: {file} cannot be read ({reason(error)}); give {WANTED}") from error
        size += len(text)
        texts += [text] if text else []
    return texts


def _decodable(file: IO[bytes], most: int) -> bytes:
    """The content of a file; a file that is not UTF-8 text is read up to its first invalid byte. Raises NotTextError,
    and ValueError for more than ``most`` bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    blocks: list[bytes] = []
    size = 0
    while True:
        block = file.read(BLOCK)
        begun = len(decoder.getstate()[0])  # bytes of a character that begins in the block before
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise NotTextError(f"is not UTF-8 text (byte {size - begun + error.start})") from error
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        size += len(block)
        if size > most:
            raise ValueError(f"more than the {LARGEST} bytes of text that are read; train.bin may be larger")
