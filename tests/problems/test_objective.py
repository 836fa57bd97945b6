"""The column objective: all of what is minimised, the same by every way to it, and no column where it is the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from problems.rating_world import problem, spread
from scipy.sparse import csr_matrix

from commexp.problems import Data, PerWorkerProblem, Problem, ProblemContext
from commexp.problems.datasets import Iid
from commexp.problems.logistic import Logistic
from commexp.problems.nonfinite import NonFiniteGuard
from commexp.problems.prox import L1
from commexp.problems.sparse_rows import SparseRows
from commexp.run_folder import Run

TERMS = [{"l2": 0.3}, {"nonconvex": 0.2}, {"l2": 0.3, "nonconvex": 0.2}]
CANCER = ("dataset=breast_cancer", "model=logistic_regression", "workers=3", "dtype=float64", "rounds=4")


def logistic(sparse: bool = False, ids: tuple[int, ...] = (0, 1, 2), **terms: float) -> Logistic:
    """50 samples of five features among three workers."""
    rng = np.random.default_rng(0)
    a, y = torch.from_numpy(rng.normal(size=(50, 5))), torch.from_numpy(rng.integers(2, size=50))
    x: Any = SparseRows(csr_matrix(a.numpy())) if sparse else a
    data = Data(x, y, x, y, classes=2)
    context = ProblemContext(Iid().split(data, 3, 0), ids, None, 0, torch.device("cpu"), torch.float64)
    return Logistic(data, context, None, **terms)


def agree(made: Problem, x: torch.Tensor) -> None:
    found = made.evaluate(x)
    exact = made.training_gradient(x)[0]
    assert found["objective"] == pytest.approx(exact, rel=1e-12, abs=1e-12)
    assert found["objective"] == pytest.approx(made.training_loss(x), rel=1e-12)
    assert found["train_loss"] < found["objective"]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("terms", TERMS)
def test_of_logistic_regression(terms: dict[str, float], sparse: bool) -> None:
    made, x = logistic(sparse, **terms), torch.linspace(-1, 2, 5, dtype=torch.float64)
    agree(made, x)
    l2, nonconvex = terms.get("l2", 0), terms.get("nonconvex", 0)
    more = l2 / 2 * float(x @ x) + nonconvex * float((x**2 / (1 + x**2)).sum())
    found = made.evaluate(x)
    assert found["objective"] - found["train_loss"] == pytest.approx(more, rel=1e-12)
    assert found["train_loss"] == pytest.approx(logistic(sparse).evaluate(x)["train_loss"], rel=1e-12)
    local = made.local_gradient(x.expand(3, -1))[0].mean()
    assert found["objective"] == pytest.approx(float(local), rel=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("travels", ["items", "all"])
def test_of_matrix_factorisation(travels: str, bias: bool) -> None:
    made = problem(travels, bias=bias)
    agree(made, spread(made)[0])


def test_with_a_proximal_term() -> None:
    x = torch.linspace(-1, 2, 5, dtype=torch.float64)
    bare, made = logistic(l2=0.3), logistic(l2=0.3)
    made.prox = L1(0.1)
    found = made.evaluate(x)["objective"]
    assert found == pytest.approx(bare.evaluate(x)["objective"] + 0.1 * float(x.abs().sum()), rel=1e-12)


def test_it_is_the_same_behind_a_watch_and_one_at_a_time() -> None:
    made, x = logistic(l2=0.3), torch.linspace(-1, 2, 5, dtype=torch.float64)
    agree(NonFiniteGuard(made, [0, 1, 2], "stop"), x)
    agree(PerWorkerProblem([logistic(ids=(n,), l2=0.3) for n in range(3)], [17, 17, 16]), x)


def test_no_column_where_the_loss_is_all() -> None:
    x = torch.linspace(-1, 2, 5, dtype=torch.float64)
    assert "objective" not in logistic().evaluate(x).keys() | logistic().composite(x).keys()
    without = problem("all", lam=0.0)
    assert "objective" not in without.evaluate(spread(without)[0])


@pytest.mark.parametrize("algo", ["sgd", "async_ps", "dsgt"])
def test_in_a_run(algo: str, run: Callable[..., Run]) -> None:
    result = run(*CANCER, f"algo={algo}", "model.l2=0.1", "algo.lr=0.1", figures=True)
    table = result.metrics
    assert list(table.columns).count("objective") == 1
    assert (table["objective"].iloc[1:] > table["train_loss"].iloc[1:]).all()
    assert result.summary["best_objective"] == table["objective"].min()
    assert "| objective " in (result.folder / "summary.md").read_text()
    assert "objective" not in run(*CANCER, f"algo={algo}", "algo.lr=0.1").metrics
