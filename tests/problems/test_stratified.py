"""The stratified split, which has to be scikit-learn's to the last sample, and the tables that come with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from commexp.problems.datasets.sklearn_files import read_table
from commexp.problems.datasets.stratified import split


def reference(labels: np.ndarray, **size: Any) -> list[np.ndarray]:
    parts: list[np.ndarray] = train_test_split(np.arange(len(labels)), random_state=0, stratify=labels, **size)
    return parts


@pytest.mark.parametrize("seed", range(40))
def test_the_split_is_that_of_scikit_learn(seed: int) -> None:
    """Samples, classes and sizes at random: with equal remainders, with small classes, with real labels."""
    draws = np.random.default_rng(seed)
    m, classes = int(draws.integers(10, 500)), int(draws.integers(1, 12))
    labels = draws.integers(0, classes, m) - 0.5 * (seed % 2)
    for held_out in (float(draws.uniform(0.01, 0.99)), 0.5, int(draws.integers(1, m))):
        try:
            expected = reference(labels, test_size=held_out)
        except ValueError:
            with pytest.raises(ValueError, match="too few samples of a class"):
                split(labels, held_out)
            continue
        for part, other in zip(split(labels, held_out), expected, strict=True):
            assert np.array_equal(part, other), (m, classes, held_out)
        if isinstance(held_out, int):
            assert np.array_equal(split(labels, held_out)[0], reference(labels, train_size=m - held_out)[0])


@pytest.mark.parametrize("held_out", [0.01, 0.1, 0.2, 0.33, 0.99, 300])
def test_the_digits_are_split_as_ever(held_out: float) -> None:
    labels = load_digits(return_X_y=True)[1]
    for part, other in zip(split(labels, held_out), reference(labels, test_size=held_out), strict=True):
        assert np.array_equal(part, other)


def test_a_class_with_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="too few samples of a class"):
        split(np.array([0, 0, 0, 0, 1]), 2)


@pytest.mark.parametrize(
    ("name", "header", "load"), [("digits.csv.gz", 0, load_digits), ("breast_cancer.csv", 1, load_breast_cancer)]
)
def test_tables_are_read_as_scikit_learn_reads_them(name: str, header: int, load: Any) -> None:
    x, y = load(return_X_y=True)
    table = read_table(name, header)
    assert table.dtype == x.dtype == np.float64
    assert np.array_equal(table[:, :-1], x)
    assert np.array_equal(table[:, -1].astype(int), y)
