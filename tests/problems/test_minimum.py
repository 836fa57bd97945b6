"""F* of l2-regularised logistic regression, and F - F* down to far below the rounding of F."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import torch
from problems.test_objective import CANCER, logistic
from scipy.optimize import minimize
from scipy.sparse import csr_array

from commexp.problems import PerWorkerProblem
from commexp.problems.minimum import MOST, Minimum
from commexp.problems.prox import L1
from commexp.run_folder import Run

RNG = np.random.default_rng(5)
SIGNED, SHARES = RNG.normal(size=(40, 4)), np.full(40, 1 / 40)


def exactly(x: np.ndarray, l2: float) -> Decimal:
    """F(x) in 60 digits."""
    at, total = [Decimal(float(v)) for v in x], Decimal(0)
    for row, share in zip(SIGNED, SHARES, strict=True):
        margin = sum((Decimal(float(a)) * v for a, v in zip(row, at, strict=True)), Decimal(0))
        total += Decimal(float(share)) * (1 + (-margin).exp()).ln()
    return total + Decimal(l2) / 2 * sum((v * v for v in at), Decimal(0))


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-6])
@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_it_is_where_the_gradient_is_zero(form: Callable[[Any], Any], l2: float) -> None:
    found = Minimum(form(SIGNED), SHARES, l2)
    slopes = -SHARES / (1 + np.exp(SIGNED @ found.point))
    assert np.abs(SIGNED.T @ slopes + l2 * found.point).max() < 1e-15
    other = minimize(found.value, np.zeros(4), tol=1e-12)
    assert found.value(found.point) <= other.fun + 1e-15
    np.testing.assert_allclose(found.point, other.x, atol=1e-4)


@pytest.mark.parametrize("size", [100.0, 1.0, 1e-2, 1e-4, 1e-6, 1e-9])
def test_the_difference_has_digits_where_the_losses_agree_in_all(size: float) -> None:
    found = Minimum(SIGNED, SHARES, 1e-3)
    x = found.point + size * np.array([1.0, -0.5, 0.3, 2.0])
    with localcontext() as context:
        context.prec = 60
        difference = float(exactly(x, 1e-3) - exactly(found.point, 1e-3))
    assert found.excess(x) == pytest.approx(difference, rel=1e-6)
    assert found.excess(found.point) == 0


def test_separable_samples_need_shorter_steps_and_no_more() -> None:
    """Newton's whole steps from zero go astray."""
    signed = np.array([[30.0, 1.0], [0.01, 2.0], [1.0, -0.9]])
    found = Minimum(signed, np.array([0.4, 0.4, 0.2]), 1e-8)
    assert found._newton(found.point)[1] < 1e-16
    assert np.isnan(found.excess(np.array([np.nan, 0.0])))


@pytest.mark.parametrize("sparse", [False, True])
def test_of_a_problem_it_is_the_difference_of_objectives(sparse: bool) -> None:
    made, x = logistic(sparse, l2=0.3), torch.linspace(-1, 2, 5, dtype=torch.float64)
    assert made.minimum is not None
    best = torch.from_numpy(made.minimum.point)
    assert made.stationarity(best) < 1e-28
    found, least = made.evaluate(x), made.evaluate(best)
    assert least["excess_loss"] == 0
    assert found["excess_loss"] == pytest.approx(found["objective"] - least["objective"], rel=1e-12)
    apart = PerWorkerProblem([logistic(sparse, ids=(n,), l2=0.3) for n in range(3)], [17, 17, 16])
    assert apart.evaluate(x) == found


def test_where_there_is_no_such_minimum_there_is_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(5, dtype=torch.float64)
    with_h = logistic(l2=0.3)
    with_h.prox = L1(0.1)
    for made in (logistic(), logistic(nonconvex=0.2), logistic(l2=0.3, nonconvex=0.2), with_h):
        assert "excess_loss" not in made.evaluate(x)
    monkeypatch.setattr("commexp.problems.logistic.MOST", 10)
    assert MOST > 10
    assert "excess_loss" not in logistic(l2=0.3).evaluate(x)


def test_in_a_run_it_falls_to_zero(run: Callable[..., Run]) -> None:
    words = [word for word in CANCER if not word.startswith("rounds")]
    table = run(*words, "model.l2=1", "batch_size=null", "algo.lr=0.3", "rounds=60", "eval_every=20").metrics
    assert table["excess_loss"].iloc[0] > 0.1
    assert 0 <= table["excess_loss"].iloc[-1] < 1e-15
    assert table["stationarity"].iloc[-1] < 1e-15
