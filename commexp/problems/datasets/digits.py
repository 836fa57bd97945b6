"""scikit-learn's handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.sklearn_files import read_table
from commexp.problems.datasets.stratified import check_validation, split, validation_split


@dataclass
class Digits(Dataset):
    """1,797 real 8 x 8 grey images of ten digits, scaled to mean 0 and variance 1. A share ``test``, stratified by
    class and the same for every seed, is held out. ``validation``: a number of training samples that are not trained on
    and replace the test set, so that tuning does not use it. Raises ValueError for a number out of range.
    Source: UCI, Optical Recognition of Handwritten Digits.
    """

    test: float = 0.2
    validation: int | None = field(default=None, metadata={"added": True})

    def __post_init__(self) -> None:
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.2")
        check_validation(self.validation)

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        images, labels = _read()
        kept, held_out = split(labels, self.test)
        train_x, test_x, train_y, test_y = images[kept], images[held_out], labels[kept], labels[held_out]
        if self.validation is not None:
            train, held_out = validation_split(self.validation, train_y)
            train_x, train_y, test_x, test_y = train_x[train], train_y[train], train_x[held_out], train_y[held_out]
        mean, std = train_x.mean(), train_x.std()
        x = [torch.tensor((a - mean) / std, dtype=dtype).view(-1, 1, 8, 8) for a in (train_x, test_x)]
        y = [torch.tensor(a, dtype=torch.long) for a in (train_y, test_y)]
        return Data(x[0], y[0], x[1], y[1], classes=10)


@cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; once in a process, as reading the numbers from text takes longer than a short run."""
    table = read_table("digits.csv.gz")
    return table[:, :-1], table[:, -1].astype(int)
