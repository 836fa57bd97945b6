"""Files in LIBSVM format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.files import content_sum
from commexp.problems.datasets.svmlight import PAGE, Samples, labelled, read

CLASSES = 1000  # at most


@dataclass
class LibSVM(Dataset):
    """Feature vectors, kept sparse, and classes from a file in LIBSVM format, plain, .gz or .bz2.

    ``path``, ``test_path``: the files; null for no file of a test set: then the share ``test`` of the first is held
    out, the same for every seed and balanced over classes. ``root``: the folder from which they count; null for the
    working directory. ``features``: J, the number of features; null for the largest index in the files. ``digest``:
    the first 16 hex digits of blake2b over the blake2b sums of the files, which stands for what is in them; it is
    filled in where they can be read.

    Two labels may be any numbers, more must be integers, at most 1,000; in ascending order they become 0, 1, ....
    Raises ValueError for other labels, for lines that are not of the format, and for a digest that is not the files';
    FileNotFoundError for a file that is not there. Source: csie.ntu.edu.tw/~cjlin/libsvmtools.
    """

    path: str = field(metadata={"location": True})
    test_path: str | None = field(default=None, metadata={"location": True})
    test: float = 0.2
    features: int | None = None
    root: str | None = field(default=None, metadata={"location": True})
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path=: empty; give a file in LIBSVM format, plain, .gz or .bz2")
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.2")
        if self.features is not None and self.features < 1:
            raise ValueError(
                f"features={self.features}: must not be less than 1; give the number of features, or null for the "
                "largest index in the files"
            )
        if self.digest:
            self._check()
        else:
            self.digest = self._sum()

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        for key, path in self._files().items():
            if not path.is_file():
                raise FileNotFoundError(
                    f"{key}: {path} is missing; put a file in LIBSVM format there, such as those of {PAGE}"
                )
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"dataset.{error}") from error
        (key, path), *more = self._files().items()
        train = read(key, path, dtype, self.features)
        labels = _classes(key, train.labels)
        if more:
            test = read(*more[0], dtype, self.features, labels)
        else:
            train, test = self._split(train)
        return labelled(train, test, self.features, labels)

    def _files(self) -> dict[str, Path]:
        """By the names under which errors name them."""
        given = {"path": self.path, "test_path": self.test_path}
        return {f"dataset.{name}={path}": Path(self.root or "", path) for name, path in given.items() if path}

    def _sum(self) -> str:
        return content_sum(self._files().values())

    def _check(self) -> None:
        if self._sum() not in (self.digest, ""):
            raise ValueError(
                f"digest={self.digest}: the files have changed since; leave it out to take them as they are now"
            )

    def _split(self, samples: Samples) -> tuple[Samples, Samples]:
        from sklearn.model_selection import train_test_split

        rows = np.arange(len(samples.labels))
        try:
            parts = train_test_split(rows, test_size=self.test, random_state=0, stratify=samples.labels)
        except ValueError as error:
            raise ValueError(
                f"dataset.test={self.test}: too few samples of a class to be in both sets; give dataset.test_path, or "
                "a share that leaves one of each on both sides"
            ) from error
        train, test = (Samples(samples.x[part], samples.labels[part]) for part in map(np.sort, parts))
        return train, test


def _classes(key: str, labels: np.ndarray) -> np.ndarray:
    """The different ones, ascending. Raises ValueError where they are no classes."""
    values = np.unique(labels)
    if len(values) == 1:
        raise ValueError(f"{key}: every label is {values[0]:g}; give a file with two labels or more")
    broken = values[values != np.round(values)]
    if len(values) > CLASSES or (len(values) > 2 and len(broken)):
        such = f" such as {broken[0]:g}" if len(broken) else ""
        raise ValueError(
            f"{key}: {len(values)} different labels{such}; labels must be classes: any two numbers, or at most "
            f"{CLASSES} integers"
        )
    return values
