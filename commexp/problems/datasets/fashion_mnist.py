"""Fashion-MNIST from files on disk."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from commexp.problems.data import Data, Dataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataclass
class FashionMNIST(Dataset):
    """60,000 training and 10,000 test images, 28 x 28 grey, ten classes of clothing, scaled to mean 0 and variance 1.

    ``root``: the folder of the four original ``*-ubyte.gz`` files; where Debian's package puts them is tried next.
    Raises FileNotFoundError where a file is in neither, ValueError where its MD5 sum is not the published one.
    Source: Xiao, Rasul and Vollgraf, arXiv 1708.07747; sums as torchvision lists them.
    """

    root: str = field(default="data/fashion-mnist", metadata={"location": True})

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        from torchvision.datasets import FashionMNIST as Published

        sums = {str(name): str(md5) for name, md5 in Published.resources}
        raw = {name: self._read(name, md5) for name, md5 in sums.items()}
        train, test = (_images(raw[f"{part}-images-idx3-ubyte.gz"]).to(dtype) for part in ("train", "t10k"))
        mean, std = train.mean(), train.std()
        labels = [_labels(raw[f"{part}-labels-idx1-ubyte.gz"]) for part in ("train", "t10k")]
        return Data((train - mean) / std, labels[0], (test - mean) / std, labels[1], classes=10)

    def _read(self, name: str, md5: str) -> bytes:
        path = next((p for p in (Path(self.root) / name, DEBIAN / name) if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"dataset=fashion_mnist: {name} is not in {self.root}; put the four original *-ubyte.gz files there, "
                "or install Debian's package dataset-fashion-mnist"
            )
        content = path.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise ValueError(f"dataset.root={self.root}: {path} is damaged (its MD5 sum is not {md5}); get it anew")
        return gzip.decompress(content)


def _images(raw: bytes) -> Tensor:
    """IDX3: 16 bytes of header, then n x 28 x 28 bytes."""
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).copy()).view(-1, 1, 28, 28)


def _labels(raw: bytes) -> Tensor:
    """IDX1: 8 bytes of header, then n bytes."""
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=8).astype(np.int64))
