"""Choices of samples that keep the shares of the classes, the same for every seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pick(name: str, n: int | None, labels: Tensor) -> Tensor:
    """Ascending indices of ``n`` samples, stratified by ``labels``; n = None means all.

    Raises ValueError if there are fewer than n samples, or too few of some class for both sides of the split.
    """
    from sklearn.model_selection import train_test_split

    m, rows = len(labels), torch.arange(len(labels))
    if n is None or n == m:
        return rows
    if m == 0:
        raise ValueError(f"dataset.{name}={n}: no training images are left for it; give dataset.samples a number")
    _check_range(f"dataset.{name}={n}", n, labels.numpy(), "", "null for all")
    chosen, _ = train_test_split(rows.numpy(), train_size=n, random_state=0, stratify=labels.numpy())
    return torch.from_numpy(chosen).sort().values


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
    from sklearn.model_selection import train_test_split

    _check_range(f"dataset.validation={n}", n, labels, " training samples", "null for the test set")
    train, held_out = train_test_split(np.arange(len(labels)), test_size=n, random_state=0, stratify=labels)
    return np.sort(train), np.sort(held_out)


def _check_range(key: str, n: int, labels: np.ndarray, what: str, other: str) -> None:
    """Raises ValueError ('``key``: ...; give ... of the m``what``, or ``other``')."""
    m, counts = len(labels), np.unique(labels, return_counts=True)[1]
    least = len(counts)
    if not least <= n <= m - least:
        raise ValueError(f"{key}: out of range; give {least} to {m - least} of the {m}{what}, or {other}")
    if counts.min() < 2:
        raise ValueError(f"{key}: a class has one sample alone, which cannot be on both sides; give {other}")
