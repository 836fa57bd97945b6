"""The text format of SVMlight and LIBSVM: a sample a line, ``label index:value index:value ... # comment``.

Indices count from 1, or from 0 for who says so, and ascend; what is not there is 0. A ``qid:value`` after the label is
passed over. The file may be packed, see files.unpacked. A sample takes a line of at most LONGEST bytes; comments and
empty lines take no more than files.BARREN bytes on end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from commexp.files import number, reading, text_lines
from commexp.problems.data import Data
from commexp.problems.sparse_rows import SparseRows

PAGE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/"
EXAMPLE = "-1 3:0.5 7:1"
LONGEST = 2**26  # some 5,000,000 features that are not 0
WIDEST = 2**26  # features where nobody says how many: no published file has more (kdd2012, 54,686,452)
LARGEST = 2**31 - 1  # index
INDEX = re.compile("[+-]?[0-9]{1,18}")


@dataclass
class Samples:
    """``x``: sparse, of scipy, [m, J], J the largest index in the file; ``labels``: float64 [m]."""

    x: Any
    labels: np.ndarray


@dataclass
class Rules:
    """What a line may hold: values finite in ``dtype``; indices from 1, or, if ``zero_based``, from 0 on, for
    ``features`` of them, WIDEST where that is None; labels that are ``known``, or any."""

    dtype: torch.dtype
    features: int | None = None
    zero_based: bool = False
    known: np.ndarray | None = None


class UnreadableError(ValueError):
    """A file cannot be read to its end."""


def samples(key: str, path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that holds a sample. Raises UnreadableError, which begins with ``key``."""
    try:
        with reading(path) as file:
            yield from text_lines(file, LONGEST)
    except ValueError as error:
        raise UnreadableError(f"{key}: {path} cannot be read ({error}); get it anew") from error


class Strict:
    """Lines for scikit-learn's parser, which would take 1_0 for 10."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self.lines = lines

    def __iter__(self) -> Iterator[bytes]:
        for _, line in self.lines:
            if b"_" in line and b"_" in line.partition(b"#")[0]:
                raise ValueError("an underscore")
            yield line

    def read(self) -> bytes:
        """The parser knows by it that this is a file."""
        raise NotImplementedError


def read(key: str, path: Path, rules: Rules) -> Samples:
    """Raises ValueError, one line that begins with ``key`` and says in which line of the file, for what is not of the
    format, against the ``rules``, or no sample."""
    from sklearn.datasets import load_svmlight_file

    try:
        x, labels = load_svmlight_file(Strict(samples(key, path)), zero_based=rules.zero_based)
    except UnreadableError:
        raise
    except (ValueError, OverflowError) as error:
        fault = _first_fault(key, path, rules) or f"is not of the format ({error}); see {PAGE}"
        raise ValueError(f"{key}: {fault}") from error
    if not len(labels):
        raise ValueError(f"{key}: holds no sample; give a file with lines such as {EXAMPLE}")
    if not x.nnz:
        raise ValueError(f"{key}: no sample has a feature; give a file with lines such as {EXAMPLE}")
    with np.errstate(over="ignore"):
        x = x.astype(str(rules.dtype).removeprefix("torch."))
    finite = np.isfinite(x.data).all() and np.isfinite(labels).all()
    known = rules.known is None or np.isin(labels, rules.known).all()
    if not finite or not known or x.shape[1] > (rules.features or WIDEST):
        raise ValueError(f"{key}: {_first_fault(key, path, rules)}")
    return Samples(x, labels)


def line_of(key: str, path: Path, row: int) -> int:
    """The line in which the ``row``-th sample stands, from 0 on."""
    return next(islice(samples(key, path), row, None))[0]


def _first_fault(key: str, path: Path, rules: Rules) -> str:
    """``line 17: what is wrong; what would be right``, or nothing."""
    faults = ((i, _fault(line, rules)) for i, line in samples(key, path))
    return next((f"line {i}: {fault}" for i, fault in faults if fault), "")


def _fault(line: bytes, rules: Rules) -> str:
    words = [word.decode("latin-1") for word in line.partition(b"#")[0].split()]
    first = 0 if rules.zero_based else 1
    label, before = number(words[0]), first - 1
    if label is None or not math.isfinite(label):
        return f"the label {words[0][:20]!r} is not a finite number; give a line such as {EXAMPLE}"
    if rules.known is not None and label not in rules.known:
        return f"the label {label:g} is not in the training file; remove such lines, or train on that label, too"
    for word in words[2 if words[1:2] and words[1].startswith("qid") else 1 :]:
        left, _, right = word.partition(":")
        value = number(right)
        if not INDEX.fullmatch(left) or value is None:
            return f"{word[:20]!r} is not index:value; give a line such as {EXAMPLE}"
        index = int(left)
        if fault := _index_fault(index, first, rules.features):
            return f"index {index} is {fault}"
        if index <= before:
            return f"index {index} comes after {before}; indices of a line ascend, each once"
        if not abs(value) <= torch.finfo(rules.dtype).max:
            return f"{word[:20]!r} is not finite in the run's dtype; give finite numbers"
        before = index
    return ""


def _index_fault(index: int, first: int, features: int | None) -> str:
    if index == 0 < first:
        return "out of range; indices count from 1; give dataset.zero_based=true if those of this file count from 0"
    if index < first:
        return f"out of range; indices count from {first}"
    if features and index - first >= features:
        return f"out of range; indices go up to dataset.features={features}" + ("" if first else " less 1")
    if index > LARGEST:
        return f"out of range; indices go up to {LARGEST}"
    if index - first >= WIDEST and not features:
        return f"beyond the {WIDEST} features that are taken for granted; give dataset.features if there are so many"
    return ""


def labelled(train: Samples, test: Samples, features: int | None, labels: np.ndarray, third_class: str = "") -> Data:
    """The samples, kept sparse; labels are numbered by their place in ``labels``, which ascend.

    J is ``features``, or the larger of what the two have.
    """
    width = features or max(part.x.shape[1] for part in (train, test))
    x, y = [], []
    for part in (train, test):
        part.x.resize(part.x.shape[0], width)
        x.append(SparseRows(part.x))
        y.append(torch.from_numpy(np.searchsorted(labels, part.labels)).long())
    return Data(x[0], y[0], x[1], y[1], classes=len(labels), third_class=third_class)
