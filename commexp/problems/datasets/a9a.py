"""The a9a data from files on disk."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from commexp.files import PACKED, reading
from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.files import place
from commexp.problems.datasets.stratified import check_validation
from commexp.problems.datasets.svmlight import PAGE, Rules, labelled, read

#: SHA-256 sums of the published files, decompressed
SUMS = {
    "a9a": "7ba53cccb27e2e525f0fb173e1f446d49856e3fb007eb43be4ec6d0f5b3335ca",
    "a9a.t": "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9",
}
FEATURES = 123
SIZE = 2**22  # bytes: the larger file has 2.3 million


@dataclass
class A9A(Dataset):
    """32,561 training and 16,281 test samples of 123 binary features of people, kept sparse; whether one earns more
    than 50,000 dollars a year: 1, else 0.

    ``root``: the folder of a9a and a9a.t, each plain, .gz, .bz2, .xz or .zip. ``validation``: a number of training
    samples that are not trained on and replace the test set, so that tuning does not use it. Raises FileNotFoundError
    if a file is missing, ValueError if its SHA-256 sum is not the published one. Source: Platt, Fast training of
    support vector machines using sequential minimal optimization (1998), from UCI's Adult; sums of the files of
    csie.ntu.edu.tw/~cjlin.
    """

    root: str = field(default="data", metadata={"location": True})
    validation: int | None = field(default=None, metadata={"added": True})

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("root=: empty; give a folder such as data")
        check_validation(self.validation)

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        key = f"dataset.root={self.root}"
        train, test = (read(key, self._published(key, name), Rules(dtype, FEATURES)) for name in SUMS)
        if self.validation is not None:
            train, test = train.validation(self.validation)
        return labelled(train, test, FEATURES, np.array([-1.0, 1.0]))

    def _published(self, key: str, name: str) -> Path:
        places = [place(self.root, name + suffix) for suffix in PACKED]
        path = next((each for each in places if os.path.isfile(each)), None)
        if path is None:
            raise FileNotFoundError(
                f"dataset=a9a: {name} is not in {self.root}; put a9a and a9a.t there, each plain, .gz or .bz2, from "
                f"{PAGE}binary.html"
            )
        try:
            with reading(path) as file:
                digest = hashlib.sha256(file.read(SIZE)).hexdigest()
        except ValueError as error:
            raise ValueError(f"{key}: {path} cannot be read ({error}); get it anew") from error
        if digest != SUMS[name]:
            raise ValueError(
                f"{key}: {path} is not the published {name} (its SHA-256 sum, unpacked, is not {SUMS[name]}); get it "
                f"anew from {PAGE}binary.html, or give dataset=libsvm for files of your own"
            )
        return path
