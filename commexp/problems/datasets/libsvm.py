"""Files in LIBSVM format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.files import check_there, content_sum, place
from commexp.problems.datasets.libsvm_sets import SETS, found, read_set
from commexp.problems.datasets.stratified import check_validation, split
from commexp.problems.datasets.svmlight import LARGEST, LONGEST, PAGE, Rules, Samples, labelled, line_of, read

CLASSES = 1000  # at most
ROOT = "data"  # the folder of published files


@dataclass
class LibSVM(Dataset):
    """Sparse feature vectors and classes from a file in LIBSVM format, plain, .gz, .xz, .zip or .bz2.

    ``path``, ``test_path``: the files. ``test``: without a test file, this share of the first is held out, stratified
    by class and the same for every seed. ``name``: in place of the path, a published set: a9a, epsilon, gisette,
    ijcnn1, mushrooms, news20, phishing, rcv1, real-sim or w8a, see libsvm_sets.py; with its own test file, if it has
    one and test_path is null. ``root``: the folder to which the paths are relative, null for the working directory; and
    in which published files lie, null for data. ``features``: J, the number of features; null for the largest index in
    the files. ``zero_based``: whether indices start at 0. ``validation``: a number of training samples that are not
    trained on and replace the test set, so that tuning does not use it. ``digest``: the first 16 hex digits of blake2b
    over the blake2b sums of the files, which identifies their content; filled in if they can be read.

    Two labels may be any numbers; more than two must be integers, at most 1,000. In ascending order they become 0, 1,
    .... Raises ValueError for other labels, for malformed lines, and for a wrong digest; FileNotFoundError for a
    missing file. Source: csie.ntu.edu.tw/~cjlin/libsvmtools.
    """

    path: str = field(metadata={"location": True})
    test_path: str | None = field(default=None, metadata={"location": True})
    test: float = 0.2
    features: int | None = None
    zero_based: bool = False
    root: str | None = field(default=None, metadata={"location": True})
    digest: str = ""
    validation: int | None = field(default=None, metadata={"added": True})
    name: str | None = field(default=None, metadata={"added": True})

    def __post_init__(self) -> None:
        if self.name is not None:
            self._check_name()
        elif not self.path:
            raise ValueError(
                "path=: empty; give a file in LIBSVM format, or a published set such as dataset.name=w8a; files may be "
                "plain, .gz, .xz, .zip or .bz2"
            )
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.2")
        check_validation(self.validation)
        if self.features is not None and not 1 <= self.features <= LARGEST:
            wrong = "must not be less than 1" if self.features < 1 else f"must not be more than {LARGEST}"
            right = "the number of features, or null for the largest index in the files"
            raise ValueError(f"features={self.features}: {wrong}; give {right}")
        if self.digest:
            self._check()
        else:
            self.digest = self._sum()

    @property
    def called(self) -> str:
        return (self.name or "").replace("-", "_")

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        if self.name is None:
            for key, path in self._files().items():
                check_there(key, path, f"put a file in LIBSVM format there, such as those of {PAGE}")
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"dataset.{error}") from error
        if self.name is not None:
            return self._load_named(self.name, dtype)
        (key, path), *more = self._files().items()
        rules = Rules(dtype, self.features, self.zero_based)
        train = read(key, path, rules)
        labels = Labels(key, path, train.labels)
        third = labels.new(2) if len(labels.values) > 2 else ""
        if more:
            test = read(*more[0], replace(rules, known=labels.values))
        else:
            train, test = self._split(train, labels)
        if self.validation is not None:
            train, test = train.validation(self.validation)
        return labelled(train, test, self.features, labels.values, third)

    def _check_name(self) -> None:
        if self.name not in SETS:
            raise ValueError(
                f"name={self.name}: no set of that name is known; give one of {', '.join(SETS)}, or dataset.path=... "
                "for another file"
            )
        for key, told, default in (
            ("path", self.path, ""),
            ("features", self.features, None),
            ("zero_based", self.zero_based, False),
        ):
            if told != default:
                raise ValueError(f"{key}={told}: dataset.name={self.name} says it already; leave one of them out")

    def _load_named(self, name: str, dtype: torch.dtype) -> Data:
        known, root = SETS[name], self.root or ROOT
        train, *test = read_set(name, root, dtype, with_test=not self.test_path)
        labels = np.array(known.labels)
        if self.test_path:
            path = place(self.root, self.test_path)
            check_there(f"dataset.test_path={self.test_path}", path, "put a file in LIBSVM format there")
            rules = Rules(dtype, known.features, known=labels)
            test = [read(f"dataset.test_path={self.test_path}", path, rules)]
        elif not test:
            key = f"dataset={name}"
            train, *test = self._split(train, Labels(key, found(root, known.train) or place(root), train.labels))
        if self.validation is not None:
            train, *test = train.validation(self.validation)
        return labelled(train, test[0], known.features, labels)

    def _files(self) -> dict[str, Path]:
        """The paths by the key that error messages use."""
        if self.name is not None:
            root, known = self.root or ROOT, SETS[self.name]
            parts = [known.train] if self.test_path else known.files
            files = {f"dataset.name={each.name}": found(root, each) or place(root, each.name) for each in parts}
            return files | ({"dataset.test_path": place(self.root, self.test_path)} if self.test_path else {})
        given = {"path": self.path, "test_path": self.test_path}
        return {f"dataset.{name}={path}": place(self.root, path) for name, path in given.items() if path}

    def _sum(self) -> str:
        return content_sum(self._files().values(), LONGEST)

    def _check(self) -> None:
        if self._sum() not in (self.digest, ""):
            raise ValueError(
                f"digest={self.digest}: the files have changed since; leave it out to take them as they are now"
            )

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        try:
            parts = split(samples.labels, self.test)
        except ValueError as error:
            if single := labels.single():
                wrong = f"{single} is the only one of its class, which cannot be in both sets"
                raise ValueError(f"{wrong}; remove that line, or give dataset.test_path") from error
            raise ValueError(
                f"dataset.test={self.test}: too few samples of a class to be in both sets; give dataset.test_path, or "
                "a share that leaves one of each on both sides"
            ) from error
        train, test = map(np.sort, parts)
        return samples.rows(train), samples.rows(test)


@dataclass
class Labels:
    """``of``: the labels of all samples in the file ``path``, which error messages call ``key``. ``values``: the
    distinct ones, ascending. Raises ValueError if they are not classes."""

    key: str
    path: Path
    of: np.ndarray

    def __post_init__(self) -> None:
        self.values, self.first = np.unique(self.of, return_index=True)
        if len(self.values) == 1:
            raise ValueError(f"{self.key}: every label is {self.values[0]:g}; give a file with two labels or more")
        whole = bool((self.values == np.round(self.values)).all())
        if len(self.values) > (CLASSES if whole else 2):
            number = CLASSES if whole else 2
            raise ValueError(
                f"{self.new(number)} is number {number + 1} of {len(self.values)} different ones; labels must be "
                f"classes: any two numbers, or at most {CLASSES} integers"
            )

    def at(self, row: int) -> str:
        """The line and the label of the ``row``-th sample, for error messages."""
        return f"{self.key}: line {line_of(self.key, self.path, row)}: the label {self.of[row]:g}"

    def new(self, number: int) -> str:
        """``at`` for the first sample whose label comes after ``number`` different ones."""
        return self.at(int(np.sort(self.first)[number]))

    def single(self) -> str:
        """``at`` for the first sample that is the only one of its class; empty if there is none."""
        rows = self.first[[np.count_nonzero(self.of == value) == 1 for value in self.values]]
        return self.at(int(rows.min())) if len(rows) else ""
