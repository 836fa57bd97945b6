"""The columns samples, epoch and samples_per_node of every algorithm, against a count of what its problem was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from registry import on_vectors, options, target

from commexp.metrics import METRICS
from commexp.problems.logistic import Logistic
from commexp.problems.margins import DenseMargins
from commexp.run_folder import Run

SETTING = ["dataset=breast_cancer", "model=logistic_regression", "workers=4", "rounds=7", "eval_every=3"]
SETTING += ["algo.lr=0.01", "dtype=float64", "network.compute.seconds=0.01", "network.compute.slow=[1,2]"]
SVRG = [f"{name} algo.solver=svrg" for name in ("async_ps", "async_sgd", "sync_ps", "ssp")]
OTHERS = ["async_sgd algo.solver=svrg algo.epoch=2", "mgrawa algo.sam=0.1", "dpsgd algo.sam=0.1"]
OTHERS += ["gradient_coding allocation.d=2", "proxgt_sr_o algo.q=2 algo.large_batch=50"]
FULL = ["sgd", "mgrawa", "async_ps", "proxgt_sr_e", "proxgt_sr_o", "deepstorm", *SVRG]  # with full batches, too
CASES = [*((case, "5") for case in [*options("algo"), *SVRG, *OTHERS]), *((case, "null") for case in FULL)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """``drawn``: samples in the batches that were asked for; ``gradients``: of single samples, at each point."""
    found: Counter[str] = Counter()

    def of(taken: Any) -> int:
        return int((taken[1] > 0).sum())

    def watch(kind: type, name: str, count: Callable[..., None]) -> None:
        inner = getattr(kind, name)

        def outer(self: Any, *given: Any, **more: Any) -> Any:
            result = inner(self, *given, **more)
            count(self, result, *given)
            return result

        monkeypatch.setattr(kind, name, outer)

    def whole(problem: Logistic) -> int:
        return sum(map(len, problem.own))

    def common(problem: Logistic, _: Any, x: Any, step: int) -> None:
        batch = problem.sampler.batch_size if problem.sampler else problem.samples
        found["drawn"] += len(x) * batch
        found["gradients"] += 0 if problem.sampler else len(x) * batch  # else counted where they are taken

    for name in ("batch", "fresh"):
        watch(Logistic, name, lambda self, taken, *_: found.update(drawn=of(taken)))
    watch(Logistic, "local_gradient", lambda self, *_: found.update(drawn=whole(self)))
    watch(Logistic, "common_gradient", common)
    watch(DenseMargins, "each", lambda self, _, taken, x: found.update(gradients=of(taken)))
    return found


@pytest.mark.parametrize(("case", "batch"), CASES)
def test_what_is_booked_is_what_was_asked_for(
    case: str, batch: str, counted: Counter[str], run: Callable[..., Run]
) -> None:
    """A sample counts once wherever its gradient is taken for one step, in samples; at each point in samples_per_node.
    What each worker of a coded method computes again counts once."""
    algo, *words = case.split()
    if case == "exact_coding":
        words = ["allocation=cyclic", "allocation.d=2"]
    found = run(*SETTING, f"batch_size={batch}", *on_vectors(algo), *words).metrics
    last = found.iloc[-1]
    assert {*found} <= METRICS.keys(), "a column without an entry in commexp/metrics.py"
    assert last["samples"] == counted["drawn"]
    assert last["epoch"] == counted["drawn"] / 455
    assert found["samples"].iloc[0] == 0
    assert np.all(np.diff(found["samples"]) > 0)
    if target("algo", algo).decentralised:
        assert last["samples_per_node"] == pytest.approx(counted["gradients"] / 4, abs=0.5)
