"""The a9a data from files on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.libsvm_sets import SETS, read_set
from commexp.problems.datasets.stratified import check_validation
from commexp.problems.datasets.svmlight import labelled


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
        train, test = read_set("a9a", self.root, dtype)
        if self.validation is not None:
            train, test = train.validation(self.validation)
        return labelled(train, test, SETS["a9a"].features, np.array(SETS["a9a"].labels))
