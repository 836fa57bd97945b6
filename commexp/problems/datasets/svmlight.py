"""The text format of SVMlight and LIBSVM: a sample a line, ``label index:value index:value ... # comment``.

Indices count from 1 and ascend; what is not there is 0. A ``qid:value`` after the label is passed over.
"""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from commexp.problems.data import Data
from commexp.problems.rows import SparseRows

PAGE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/"
EXAMPLE = "-1 3:0.5 7:1"
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}


@dataclass
class Samples:
    """``x``: sparse, of scipy, [m, J], J the largest index in the file; ``labels``: float64 [m]."""

    x: Any
    labels: np.ndarray


@contextmanager
def unpacked(key: str, path: Path) -> Iterator[IO[bytes]]:
    """What a plain, .gz or .bz2 file holds. Raises ValueError, which begins with ``key``, for one that is damaged."""
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{key}: {path} cannot be read ({' '.join(str(error).split())}); get it anew") from error


def read(
    key: str, path: Path, dtype: torch.dtype, features: int | None = None, known: np.ndarray | None = None
) -> Samples:
    """Raises ValueError, one line that begins with ``key`` and says in which line of the file, for what is not of the
    format, not finite in ``dtype``, an index above ``features``, a label that is not in ``known``, or no sample."""
    from sklearn.datasets import load_svmlight_file

    try:
        with unpacked(key, path) as file:
            x, labels = load_svmlight_file(file, zero_based=False)
    except (ValueError, OverflowError) as error:
        fault = _first_fault(key, path, dtype, features, known) or f"is not of the format ({error}); see {PAGE}"
        raise ValueError(f"{key}: {fault}") from error
    if not len(labels):
        raise ValueError(f"{key}: holds no sample; give a file with lines such as {EXAMPLE}")
    if not x.nnz:
        raise ValueError(f"{key}: no sample has a feature; give a file with lines such as {EXAMPLE}")
    with np.errstate(over="ignore"):
        x = x.astype(str(dtype).removeprefix("torch."))
    finite = np.isfinite(x.data).all() and np.isfinite(labels).all()
    if not finite or x.shape[1] > (features or math.inf) or (known is not None and not np.isin(labels, known).all()):
        raise ValueError(f"{key}: {_first_fault(key, path, dtype, features, known)}")
    return Samples(x, labels)


def line_of(key: str, path: Path, row: int) -> int:
    """The line in which the ``row``-th sample stands, from 0 on."""
    with unpacked(key, path) as file:
        samples = (i for i, line in enumerate(file, 1) if line.partition(b"#")[0].split())
        return next(islice(samples, row, None))


def _first_fault(key: str, path: Path, dtype: torch.dtype, features: int | None, known: np.ndarray | None) -> str:
    """``line 17: what is wrong; what would be right``, or nothing."""
    with unpacked(key, path) as file:
        faults = ((i, _fault(line, torch.finfo(dtype).max, features, known)) for i, line in enumerate(file, 1))
        return next((f"line {i}: {fault}" for i, fault in faults if fault), "")


def _fault(line: bytes, largest: float, features: int | None, known: np.ndarray | None) -> str:
    words = [word.decode("latin-1") for word in line.partition(b"#")[0].split()]
    if not words:
        return ""
    label, before = _number(words[0]), 0
    if label is None or not math.isfinite(label):
        return f"the label {words[0][:20]!r} is not a finite number; give a line such as {EXAMPLE}"
    if known is not None and label not in known:
        return f"the label {label:g} is not in the training file; remove such lines, or train on that label, too"
    for word in words[2 if words[1:2] and words[1].startswith("qid") else 1 :]:
        left, _, right = word.partition(":")
        try:
            index = int(left)
        except ValueError:
            index = None
        value = _number(right)
        if index is None or value is None:
            return f"{word[:20]!r} is not index:value; give a line such as {EXAMPLE}"
        if index < 1:
            return f"index {index} is out of range; indices count from 1"
        if index > (features or 2**31 - 1):
            return f"index {index} is out of range; indices go up to " + (
                f"dataset.features={features}" if features else f"{2**31 - 1}"
            )
        if index <= before:
            return f"index {index} comes after {before}; indices of a line ascend, each once"
        if not abs(value) <= largest:
            return f"{word[:20]!r} is not finite in the run's dtype; give finite numbers"
        before = index
    return ""


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


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
