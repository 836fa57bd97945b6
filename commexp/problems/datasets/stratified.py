"""Choices of samples that keep the shares of the classes, the same for every seed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def pick(name: str, n: int | None, labels: Tensor) -> Tensor:
    """Ascending indices of ``n`` samples, stratified by ``labels``; n = None means all.

    Raises ValueError if there are fewer than n samples, or too few of some class for both sides of the split.
    """
    m = len(labels)
    if n is None or n == m:
        return torch.arange(m)
    if m == 0:
        raise ValueError(f"dataset.{name}={n}: no training images are left for it; give dataset.samples a number")
    _check_range(f"dataset.{name}={n}", n, labels.numpy(), "", "null for all")
    chosen, _ = split(labels.numpy(), m - n)
    return torch.from_numpy(np.sort(chosen))


def without(rows: Tensor, m: int) -> Tensor:
    """The ascending indices below ``m`` that are not among ``rows``."""
    return torch.ones(m, dtype=torch.bool).index_fill(0, rows, False).nonzero()[:, 0]


def check_validation(n: int | None) -> None:
    """Raises ValueError for a number of validation samples below 1."""
    if n is not None and n < 1:
        raise ValueError(
            f"validation={n}: must not be less than 1; give a number of training samples, or null for none"
        )


def validation_split(n: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending indices of the training samples that are trained on, and of the ``n`` others that replace the test set,
    stratified by their ``labels`` [m], which are any numbers.

    Raises ValueError if there are too few samples of some class for both sides.
    """
    _check_range(f"dataset.validation={n}", n, labels, " training samples", "null for the test set")
    train, held_out = split(labels, n)
    return np.sort(train), np.sort(held_out)


def split(labels: np.ndarray, held_out: int | float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the samples that stay and of the ``held_out`` others (a number, or a share, rounded up), both in
    random order, stratified by their ``labels`` [m]. They are those of scikit-learn's train_test_split with
    random_state=0 and stratify=labels, which takes a second to import.

    Raises ValueError if a class has one sample alone, or if either side has fewer samples than there are classes.
    """
    m, count = len(labels), math.ceil(held_out * len(labels)) if isinstance(held_out, float) else held_out
    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if sizes.min() < 2 or not len(sizes) <= count <= m - len(sizes):
        raise ValueError("too few samples of a class to be on both sides")
    draws = np.random.RandomState(0)
    staying = apportioned(sizes, m - count, draws)
    leaving = apportioned(sizes - staying, count, draws)
    kept, out = [], []
    classes = np.split(np.argsort(numbers, kind="stable"), np.cumsum(sizes)[:-1])
    for own, stay, leave in zip(classes, staying, leaving, strict=True):
        mixed = own[draws.permutation(len(own))]
        kept.append(mixed[:stay])
        out.append(mixed[stay : stay + leave])
    return draws.permutation(np.concatenate(kept)), draws.permutation(np.concatenate(out))


def apportioned(sizes: np.ndarray, n: int, draws: np.random.RandomState) -> np.ndarray:
    """How many of ``n`` samples come from each class of ``sizes``: its share, rounded down, and one more for the
    classes with the largest remainders; ``draws`` decides among equal ones."""
    shares = sizes / sizes.sum() * n
    found: np.ndarray = np.floor(shares)
    missing, rest = int(n - found.sum()), shares - found
    for remainder in np.unique(rest)[::-1]:
        if missing <= 0:
            break
        equal = np.flatnonzero(rest == remainder)
        more = draws.choice(equal, size=min(len(equal), missing), replace=False)
        found[more] += 1
        missing -= len(more)
    return found.astype(int)


def _check_range(key: str, n: int, labels: np.ndarray, what: str, other: str) -> None:
    """Raises ValueError ('``key``: ...; give ... of the m``what``, or ``other``')."""
    m, counts = len(labels), np.unique(labels, return_counts=True)[1]
    least = len(counts)
    if not least <= n <= m - least:
        raise ValueError(f"{key}: out of range; give {least} to {m - least} of the {m}{what}, or {other}")
    if counts.min() < 2:
        raise ValueError(f"{key}: a class has one sample alone, which cannot be on both sides; give {other}")
