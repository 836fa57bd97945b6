"""The text format of SVMlight and LIBSVM: a sample a line, ``label index:value index:value ... # comment``.

Indices count from 1, or from 0 for who says so, and ascend; what is not there is 0. A ``qid:value`` after the label is
passed over. The file may be packed, see files.unpacked. A sample takes a line of at most LONGEST bytes; comments and
empty lines take no more than files.BARREN bytes on end.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from commexp.files import reading, text_lines
from commexp.problems.data import Data
from commexp.problems.datasets.stratified import validation_split
from commexp.problems.sparse_rows import SparseRows

PAGE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/"
EXAMPLE = "-1 3:0.5 7:1"
LONGEST = 2**26  # some 5,000,000 features that are not 0
WIDEST = 2**26  # most features where dataset.features is not given: no published file has more (kdd2012, 54,686,452)
LARGEST = 2**31 - 1  # index
INTEGER = re.compile("[+-]?[0-9]+")


@dataclass
class Samples:
    """``x``: sparse, of scipy, [m, J], J the largest index in the file; ``labels``: float64 [m]."""

    x: Any
    labels: np.ndarray

    def rows(self, rows: np.ndarray) -> Samples:
        """The samples ``rows``."""
        return Samples(self.x[rows], self.labels[rows])

    def validation(self, n: int) -> tuple[Samples, Samples]:
        """The samples that are trained on, and ``n`` others that replace the test set, see validation_split."""
        train, held_out = validation_split(n, self.labels)
        return self.rows(train), self.rows(held_out)


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


class Lines:
    """Samples, without comments, as scikit-learn's parser takes them. ``count``: how many it has asked for. Raises
    ValueError for an underscore: the parser would take 1_0 for 10."""

    def __init__(self, lines: Iterable[tuple[int, bytes]]) -> None:
        self.lines, self.count = lines, 0

    def __iter__(self) -> Iterator[bytes]:
        for _, line in self.lines:
            self.count += 1
            sample = line.partition(b"#")[0]
            if b"_" in sample:
                raise ValueError("an underscore")
            yield sample

    def read(self) -> bytes:
        """The parser knows by it that this is a file."""
        raise NotImplementedError


def _parse(lines: Lines, rules: Rules) -> Samples:
    """Raises ValueError or OverflowError for what is not of the format."""
    from sklearn.datasets import load_svmlight_file

    x, labels = load_svmlight_file(lines, zero_based=rules.zero_based)
    with np.errstate(over="ignore"):
        return Samples(x.astype(str(rules.dtype).removeprefix("torch.")), labels)


def read(key: str, path: Path, rules: Rules) -> Samples:
    """Raises ValueError, one line that begins with ``key`` and says in which line of the file, for what is not of the
    format, against the ``rules``, or no sample."""
    lines, broken = Lines(samples(key, path)), None
    try:
        parsed = _parse(lines, rules)
    except UnreadableError:
        raise
    except (ValueError, OverflowError):
        broken = lines.count - 1  # the row at which the parser stopped; one before it may be against the rules
        parsed = _parse(Lines(islice(samples(key, path), broken)), rules)
    row = _forbidden_row(parsed, rules)
    fault = _misread if row is None else _forbidden
    row = broken if row is None else row
    if row is not None:
        number, line = next(islice(samples(key, path), row, None))
        words = [word.decode("latin-1") for word in line.partition(b"#")[0].split()]
        raise ValueError(f"{key}: line {number}: {fault(words, rules)}")
    if not len(parsed.labels):
        raise ValueError(f"{key}: holds no sample; give a file with lines such as {EXAMPLE}")
    if not parsed.x.nnz:
        raise ValueError(f"{key}: no sample has a feature; give a file with lines such as {EXAMPLE}")
    return parsed


def line_of(key: str, path: Path, row: int) -> int:
    """The line in which the ``row``-th sample stands, from 0 on."""
    return next(islice(samples(key, path), row, None))[0]


def _forbidden_row(parsed: Samples, rules: Rules) -> int | None:
    """The first one that has a label or a feature against the rules."""
    x, wrong = parsed.x, ~np.isfinite(parsed.labels)
    if rules.known is not None:
        wrong |= ~np.isin(parsed.labels, rules.known)
    entries = np.flatnonzero(~np.isfinite(x.data) | (x.indices >= (rules.features or WIDEST)))
    wrong[np.searchsorted(x.indptr, entries[:1], side="right") - 1] = True
    return int(wrong.argmax()) if wrong.any() else None


def _forbidden(words: list[str], rules: Rules) -> str:
    """``what is wrong; what would be right`` of a line that the parser reads and the rules forbid."""
    label, first = float(words[0]), 0 if rules.zero_based else 1
    if not math.isfinite(label):
        return f"the label {words[0][:20]!r} is not a finite number; give a line such as {EXAMPLE}"
    if rules.known is not None and label not in rules.known:
        return f"the label {label:g} is not in the training file; remove such lines, or train on that label, too"
    for word in words[2 if words[1].startswith("qid") else 1 :]:
        index, value = word.split(":")
        if rules.features and int(index) - first >= rules.features:
            less = "" if first else " less 1"
            return f"index {index} is out of range; indices go up to dataset.features={rules.features}{less}"
        if int(index) - first >= (rules.features or WIDEST):
            taken = f"the {WIDEST} features that are taken for granted"
            return f"index {index} is beyond {taken}; give dataset.features if there are so many"
        if not abs(float(value)) <= torch.finfo(rules.dtype).max:
            break
    return f"{word[:20]!r} is not finite in the run's dtype; give finite numbers"


def _misread(words: list[str], rules: Rules) -> str:
    """The same of a line that the parser does not read: it is asked about the first so many words, then about one."""

    def reads(*some: str) -> bool:
        try:
            _parse(Lines([(1, " ".join(some).encode("latin-1"))]), rules)
        except (ValueError, OverflowError):
            return False
        return True

    place = bisect.bisect_left(range(len(words)), True, key=lambda last: not reads(*words[: last + 1]))
    word, (index, _, value) = words[place], words[place].partition(":")
    if place == 0:
        return f"the label {word[:20]!r} is not a finite number; give a line such as {EXAMPLE}"
    if not INTEGER.fullmatch(index) or not reads("0", f"1:{value}"):
        return f"{word[:20]!r} is not index:value; give a line such as {EXAMPLE}"
    if reads("0", word):
        before = words[place - 1].partition(":")[0]
        return f"index {index} comes after {before}; indices of a line ascend, each once"
    index = index[:20]
    if int(index) > 0:
        return f"index {index} is out of range; indices go up to {LARGEST}"
    right = "; give dataset.zero_based=true if those of this file count from 0" if int(index) == 0 else ""
    return f"index {index} is out of range; indices count from {0 if rules.zero_based else 1}{right}"


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
