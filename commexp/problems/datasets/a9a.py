"""The a9a data from files on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.svmlight import OPENERS, PAGE, labelled, read, unpacked

#: SHA-256 sums of what the published files hold, unpacked
SUMS = {
    "a9a": "7ba53cccb27e2e525f0fb173e1f446d49856e3fb007eb43be4ec6d0f5b3335ca",
    "a9a.t": "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9",
}
FEATURES = 123


@dataclass
class A9A(Dataset):
    """32,561 training and 16,281 test samples of 123 binary features of people, kept sparse; whether one earns more
    than 50,000 dollars a year: 1, else 0.

    ``root``: the folder of a9a and a9a.t, each plain, .gz or .bz2. Raises FileNotFoundError where one is not there,
    ValueError where its SHA-256 sum is not the published one's. Source: Platt, Fast training of support vector machines
    using sequential minimal optimization (1998), from UCI's Adult; sums of the files of csie.ntu.edu.tw/~cjlin.
    """

    root: str = field(default="data", metadata={"location": True})

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("root=: empty; give a folder such as data")

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        key = f"dataset.root={self.root}"
        train, test = (read(key, self._published(key, name), dtype, FEATURES) for name in SUMS)
        return labelled(train, test, FEATURES, np.array([-1.0, 1.0]))

    def _published(self, key: str, name: str) -> Path:
        places = [Path(self.root, name + suffix) for suffix in ("", *OPENERS)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"dataset=a9a: {name} is not in {self.root}; put a9a and a9a.t there, each plain, .gz or .bz2, from "
                f"{PAGE}binary.html"
            )
        digest = hashlib.sha256()
        with unpacked(key, path) as file:
            while block := file.read(2**20):
                digest.update(block)
        if digest.hexdigest() != SUMS[name]:
            raise ValueError(
                f"{key}: {path} is not the published {name} (its SHA-256 sum, unpacked, is not {SUMS[name]}); get it "
                f"anew from {PAGE}binary.html, or give dataset=libsvm for files of your own"
            )
        return path
