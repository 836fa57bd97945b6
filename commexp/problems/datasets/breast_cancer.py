"""scikit-learn's breast cancer data."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.sklearn_files import read_table
from commexp.problems.datasets.stratified import check_validation, split, validation_split


@dataclass
class BreastCancer(Dataset):
    """569 samples of 30 features of cell nuclei, each feature scaled to mean 0 and variance 1 over the training set;
    class 0 is malignant, 1 benign. A share ``test``, stratified by class and the same for every seed, is held out.
    ``validation``: a number of training samples that are not trained on and replace the test set, so that tuning does
    not use it. Raises ValueError for a number out of range. Source: UCI, Breast Cancer Wisconsin (Diagnostic).
    """

    test: float = 0.2
    validation: int | None = field(default=None, metadata={"added": True})

    def __post_init__(self) -> None:
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.2")
        check_validation(self.validation)

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        table = read_table("breast_cancer.csv", header=1)
        features, labels = table[:, :-1], table[:, -1].astype(int)
        kept, held_out = split(labels, self.test)
        train_x, test_x, train_y, test_y = features[kept], features[held_out], labels[kept], labels[held_out]
        if self.validation is not None:
            train, held_out = validation_split(self.validation, train_y)
            train_x, train_y, test_x, test_y = train_x[train], train_y[train], train_x[held_out], train_y[held_out]
        mean, std = train_x.mean(0), train_x.std(0)
        x = [torch.tensor((a - mean) / std, dtype=dtype) for a in (train_x, test_x)]
        y = [torch.tensor(a, dtype=torch.long) for a in (train_y, test_y)]
        return Data(x[0], y[0], x[1], y[1], classes=2)
