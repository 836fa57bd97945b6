"""The IDX format of MNIST and those that look like it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from commexp.files import reading
from commexp.problems.datasets.files import check, fetch, is_sound, locked

SIZE = 2**26  # bytes of an unpacked file: the largest published one has 47 million
Resources = Sequence[tuple[str, str]]  # names and MD5 sums


def read(
    key: str,
    root: str,
    places: Sequence[Path],
    resources: Resources,
    mirrors: Sequence[str] | None,
    otherwise: str,
    unpacked: Mapping[str, str] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images uint8 [m, 1, H, W] and labels int64 [m], test images and labels, from ``*-ubyte.gz`` files.

    ``places``: folders to look in, the first of which is root. ``mirrors``: addresses to fetch from what is missing,
    None for not to. ``otherwise``: what else the user can do. ``unpacked``: MD5 sums of what is in the files, by which
    one that was packed anew is known. Raises FileNotFoundError for a missing file, ValueError for a damaged one.
    """
    paths = {}
    for name, md5 in resources:
        path = _find(places, name)
        if path is None and mirrors:
            with locked(root, name):
                path = _find(places, name)
                if path is None:
                    fetch([mirror + name for mirror in mirrors], places[0], name, md5)
                    path = places[0] / name
        if path is None:
            raise FileNotFoundError(
                f"{key}: {name} is not in {root}; put the four original *-ubyte.gz files there, {otherwise}"
            )
        if not _is_packed_anew(path, md5, (unpacked or {}).get(name)):
            check(root, path, md5)
        paths[name] = path
    train, test = (
        (_read(root, paths[f"{part}-images-idx3-ubyte.gz"]), _read(root, paths[f"{part}-labels-idx1-ubyte.gz"]))
        for part in ("train", "t10k")
    )
    return train[0].unsqueeze(1), train[1].long(), test[0].unsqueeze(1), test[1].long()


def _find(places: Sequence[Path], name: str) -> Path | None:
    return next((place / name for place in places if os.path.isfile(place / name)), None)


def _is_packed_anew(path: Path, md5: str, unpacked: str | None) -> bool:
    """Whether the file is not the published one, but what it holds is."""
    try:
        if unpacked is None or is_sound(path, md5):
            return False
        content = _content(path)
    except (OSError, ValueError):
        return False
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == unpacked


def _content(path: Path) -> bytes:
    with reading(path) as file:
        return file.read(SIZE)


def _read(root: str, path: Path) -> Tensor:
    """An array of bytes. torchvision's reader wants a file that is not packed. Raises ValueError for anything else."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    with tempfile.NamedTemporaryFile() as plain:
        plain.write(_content(path))
        plain.flush()
        try:
            array: Tensor = read_sn3_pascalvincent_tensor(plain.name)
        except (AssertionError, KeyError, RuntimeError, ValueError):  # it asserts what its format needs
            array = torch.empty(0)
    if array.dtype != torch.uint8:
        raise ValueError(f"dataset.root={root}: {path} is no IDX file of bytes; get it anew")
    return array
