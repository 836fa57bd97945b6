"""L, L_n and mu against dense eigenvalues and second derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from commexp.problems import Data
from commexp.problems.base import ProblemContext
from commexp.problems.datasets import LinReg
from commexp.problems.least_squares import LeastSquares
from commexp.problems.logistic import Logistic
from commexp.problems.smoothness import SMALL, gram_eigenvalue, largest_eigenvalue
from commexp.problems.sparse_rows import SparseRows

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [1, 7, SMALL, SMALL + 30])
def test_the_largest_eigenvalue(size: int) -> None:
    rows = np.random.default_rng(size).standard_normal((size + 5, size))
    gram = rows.T @ rows
    assert largest_eigenvalue(gram) == pytest.approx(np.linalg.eigvalsh(gram)[-1], rel=1e-9)
    assert largest_eigenvalue(np.zeros((size, size))) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(40, 90), (200, 30), (200, 90), (90, 200), (3, 500)])
@pytest.mark.parametrize("sparse", [False, True])
def test_of_weighted_rows(shape: tuple[int, int], sparse: bool) -> None:
    rng = np.random.default_rng(sum(shape))
    rows, weights = rng.standard_normal(shape) * (rng.random(shape) < 0.3), rng.random(shape[0])
    given: Any = SparseRows(rows).matrix if sparse else rows
    expected = np.linalg.eigvalsh(rows.T @ (weights[:, None] * rows))[-1]
    assert gram_eigenvalue(given, weights) == pytest.approx(expected, rel=1e-9)


def test_least_squares() -> None:
    data = LinReg(dim=80, samples=100).load(4, 0, torch.float64)
    assert data.shards is not None
    for here in (range(4), range(2, 4)):
        made = LeastSquares(data, ProblemContext(data.shards, here, None, 0, CPU, torch.float64)).smoothness()
        hessians = []
        for rows in data.shards:
            x = data.train_x[rows].numpy()
            hessians.append(2 / len(x) * x.T @ x)
        whole = np.linalg.eigvalsh(np.mean(hessians, axis=0))
        assert pytest.approx(whole[-1], rel=1e-9) == made.L
        assert made.mu == pytest.approx(whole[0], rel=1e-9)
        np.testing.assert_allclose(made.L_n, [np.linalg.eigvalsh(h)[-1] for h in hessians][here.start :], rtol=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_logistic(sparse: bool) -> None:
    """Shards of 10, 20 and 30 samples; with the weights of F, 1/3 each."""
    rng = np.random.default_rng(5)
    a = rng.standard_normal((60, 70)) * (rng.random((60, 70)) < 0.4)
    y = torch.from_numpy((rng.random(60) < 0.5).astype(np.int64))
    shards = [torch.arange(10), torch.arange(10, 30), torch.arange(30, 60)]
    features: Any = SparseRows(a) if sparse else torch.from_numpy(a)
    context = ProblemContext(shards, range(3), None, 0, CPU, torch.float64)
    made = Logistic(Data(features, y, classes=2), context, None, l2=0.1, nonconvex=0.05).smoothness()
    each = [a[rows.numpy()].T @ a[rows.numpy()] / len(rows) for rows in shards]
    np.testing.assert_allclose(made.L_n, [np.linalg.eigvalsh(g)[-1] / 4 + 0.2 for g in each], rtol=1e-9)
    assert pytest.approx(np.linalg.eigvalsh(sum(each) / 3)[-1] / 4 + 0.2, rel=1e-9) == made.L
    assert made.mu == pytest.approx(0.1 - 0.025)
    x = np.linspace(-3, 3, 200001)
    curvature = (2 - 6 * x**2) / (1 + x**2) ** 3  # of x^2 / (1 + x^2)
    assert (curvature.min(), curvature.max()) == (pytest.approx(-0.5), pytest.approx(2.0))
