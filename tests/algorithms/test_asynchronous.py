"""Methods whose workers do not wait: against the local solver alone, a barrier, a recursion of their own."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from registry import interrupted, plan, untimed
from sklearn.linear_model import LogisticRegression

from commexp.algorithms import AsyncPS
from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.algorithms.local.solver import run_local_solver
from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.problems import PerWorkerProblem
from commexp.run_folder import Run
from commexp.server.endpoints import WorkerEndpoint

CANCER = ["dataset=breast_cancer", "model=logistic_regression", "model.l2=0.01", "dtype=float64", "partition=iid"]
CANCER += ["workers=4", "batch_size=8", "algo.lr=0.05", "rounds=30", "eval_every=10", "launch.threads=1"]
FAST = ["network.bandwidth=1e30", "network.latency=0"]  # messages take no time at all
UNEVEN = ["network.compute.slow=[1,2,4,8]"]
METHODS = ["async_ps", "sync_ps", "ssp", "async_sgd"]


def set_up(*words: str) -> ExperimentSetup:
    made = plan(*CANCER, *words)
    return ExperimentSetup(made, torch.device("cpu"), Run(Path("none")))


def method(made: ExperimentSetup) -> Any:
    assert isinstance(made.algorithm, Asynchronous)
    return made.algorithm


@pytest.mark.parametrize("solver", ["sgd", "svrg"])
def test_one_worker_is_the_local_solver_alone(solver: str) -> None:
    made = set_up("workers=1", "algo=async_ps", f"algo.solver={solver}", "algo.decay=0.1")
    algorithm, problem = method(made), made.problem
    assert isinstance(problem, PerWorkerProblem)
    x = algorithm.x.clone()
    for t in range(5):
        algorithm.round(t)
        x = run_local_solver(solver, problem, x, 10 * t, 10, 0.05 / (1 + 0.1 * t))
        assert torch.allclose(algorithm.x, x, rtol=1e-12, atol=1e-14)


def test_svrg_is_its_recursion() -> None:
    """Against gradients of single samples, written out."""
    made = set_up("workers=1", "algo=async_ps")
    problem = made.problem
    z = torch.randn(problem.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
    x, full = z.clone(), problem.local_gradient(z[None])[1][0].clone()
    for s in range(3, 7):
        batch = problem.batch(s)
        there, here = (problem.loss_and_grad(p[None], batch)[1][0].clone() for p in (x, z))
        x = x - 0.1 * (there - here + full)
    assert torch.allclose(run_local_solver("svrg", problem, z, 3, 4, 0.1), x, rtol=1e-12)


@pytest.mark.parametrize("solver", ["sgd", "svrg"])
def test_in_lock_step_it_is_the_barrier(solver: str) -> None:
    equal = [f"algo.solver={solver}", "workers=5"]  # as many samples each, so that svrg costs each the same
    made = [set_up(f"algo={name}", *equal, *FAST) for name in ("async_ps", "sync_ps")]
    stale = set_up("algo=ssp", "algo.bound=0", *equal, *UNEVEN)
    for t in range(10):
        for each in made:
            method(each).round(t)
        assert torch.allclose(method(made[0]).x, method(made[1]).x, rtol=1e-12, atol=1e-14)
    assert made[0].record.clock.now == made[1].record.clock.now
    for t in range(50):  # a bound of 0 is a barrier for those who wait; one message a round
        method(stale).round(t)
    assert torch.allclose(method(stale).x, method(made[1]).x, rtol=1e-9)


def test_the_last_message_of_a_worker_counts_alone_and_x_is_the_mean() -> None:
    algorithm = method(set_up("algo=async_ps", "algo.shares=samples"))
    moved = torch.randn(3, len(algorithm.x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = algorithm.x.clone()
    for each in moved:
        algorithm.receive(1, each)
    assert torch.allclose(algorithm.x, start + algorithm.pi[1] * moved[-1], rtol=1e-12)
    assert sum(algorithm.pi) == pytest.approx(1)
    made = method(set_up("algo=async_ps", *UNEVEN))
    for t in range(25):
        made.round(t)
    assert torch.allclose(made.x, made.last.mean(0), rtol=1e-10)
    assert made.calls[0] > 4 * made.calls[3]


def test_pairwise_goes_half_way() -> None:
    algorithm = method(set_up("algo=async_ps", "algo.aggregation=pairwise"))
    sent, moved = algorithm.sent[2].clone(), torch.ones_like(algorithm.x)
    algorithm.receive(2, moved)
    assert torch.allclose(algorithm.x, sent + moved / 2)


@pytest.mark.parametrize("bound", [0, 2])
def test_nobody_is_further_ahead_than_the_bound(bound: int) -> None:
    algorithm = method(set_up("algo=ssp", f"algo.bound={bound}", *UNEVEN))
    ahead = []
    for t in range(60):
        algorithm.round(t)
        ahead.append(max(algorithm.given) - min(algorithm.given))
    assert max(ahead) == bound + 1


def test_gradients_that_are_too_old_are_dropped_and_old_ones_weigh_less() -> None:
    free, strict = (method(set_up("algo=async_sgd", *words, *UNEVEN)) for words in ([], ["algo.bound=2"]))
    for t in range(40):
        free.round(t)
        strict.round(t)
    assert free.dropped == 0
    assert 0 < strict.dropped == 40 - strict.updates
    aware = method(set_up("algo=async_sgd", "algo.aware=true"))
    aware.version, before = 4, aware.x.clone()
    aware.receive(0, torch.ones_like(aware.x))
    assert torch.allclose(aware.x, before - 0.05 / 5)


def test_asynchronous_svrg_of_one_worker_is_svrg() -> None:
    """An epoch of 6 updates between snapshots, each of which takes a message for the full gradient."""
    made = set_up("workers=1", "algo=async_sgd", "algo.solver=svrg", "algo.epoch=6")
    algorithm, problem = method(made), made.problem
    x = algorithm.x.clone()
    for t in range(14):
        algorithm.round(t)
    for epoch in range(2):
        x = run_local_solver("svrg", problem, x, 6 * epoch, 6, 0.05)
    assert torch.allclose(algorithm.x, x, rtol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(
    name: str, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*CANCER, f"algo={name}", *UNEVEN, "network.compute.kind=lognormal", "compress=topk", "rounds=12"]
    whole = run(*words)
    names = ("metrics", "traffic", "staleness", "workers", "gantt")
    tables = [untimed(whole.folder / f"{name}.csv") for name in names]
    with interrupted(after=6):
        assert run(*words, "rerun=true").status == "interrupted"
    resumed = run(*words)
    assert "resumed after round 6" in (resumed.folder / "run.log").read_text()
    assert [untimed(resumed.folder / f"{name}.csv") for name in names] == tables
    with open(whole.folder / "workers.csv", encoding="utf-8") as file:
        workers = list(csv.DictReader(file))
    assert sum(int(w["calls"]) for w in workers) == whole.metrics["calls"].iloc[-1]
    traffic = whole.traffic
    assert set(traffic["direction"]) == {"up", "down"}
    up = traffic[traffic["direction"] == "up"]
    assert len(up) == whole.metrics["calls"].iloc[-1]
    assert (up["bytes_sent"] == up["bytes_wire"]).all()


def test_it_comes_to_the_optimum() -> None:
    """scikit-learn's, of the same objective: mean log loss over equal shares and (l2/2) ||x||^2."""
    words = ["algo.solver=svrg", "algo.lr=0.2", "algo.decay=0.1", "algo.iterations=5", "model.l2=1", *UNEVEN]
    made = set_up("algo=async_ps", *words)
    algorithm, problem = method(made), made.problem
    for t in range(700):
        algorithm.round(t)
    own = problem.problems[0]  # type: ignore[attr-defined]
    signed, shares = own.margins.signed.numpy(), own.shares.numpy()
    labels = [1 - 2 * (i % 2) for i in range(len(signed))]  # a sample and its mirror image have the same loss
    features = signed * torch.tensor(labels).numpy()[:, None]
    best = LogisticRegression(C=1 / len(signed), fit_intercept=False, tol=1e-12, max_iter=10_000)
    best.fit(features, labels, sample_weight=shares * len(signed))
    optimum = problem.training_loss(torch.from_numpy(best.coef_[0]))
    assert problem.training_loss(algorithm.x) == pytest.approx(optimum, rel=1e-6)


LEFT = [(name, solver) for name in ("async_ps", "ssp", "async_sgd") for solver in ("sgd", "svrg")]


@pytest.mark.parametrize(("name", "solver"), LEFT)
def test_the_others_go_on_without_a_lost_one_which_may_come_back(name: str, solver: str) -> None:
    made = set_up(f"algo={name}", f"algo.solver={solver}", *UNEVEN, *["algo.epoch=12"] * (name == "async_sgd"))
    algorithm, clock = method(made), made.record.clock
    for t in range(15):
        algorithm.round(t)
    clock.ready[1] = math.inf  # type: ignore[union-attr]
    algorithm.lost(1)
    calls = algorithm.calls[1]
    for t in range(15, 100):
        algorithm.round(t)
    assert algorithm.calls[1] == calls
    assert min(algorithm.calls[n] for n in (0, 2, 3)) > 5, "nobody waits for it"
    those = algorithm.last if name == "async_ps" else algorithm.sent
    apart = (those[[0, 2, 3]].numpy() - algorithm.x.numpy()) ** 2
    assert algorithm.disagreement() == pytest.approx(apart.sum(1).max() ** 0.5), "of those who are there"
    before = algorithm.x.clone()
    algorithm.joined(1)
    assert torch.equal(algorithm.x, before)
    for t in range(100, 160):
        algorithm.round(t)
    assert algorithm.calls[1] > calls + 5
    assert made.problem.training_loss(algorithm.x) < 0.3  # type: ignore[attr-defined]


def test_the_mean_is_that_of_those_who_are_there() -> None:
    made = set_up("algo=async_ps", "algo.shares=samples", *UNEVEN)
    algorithm = method(made)
    for t in range(20):
        algorithm.round(t)
    pi, last = torch.tensor(algorithm.pi, dtype=torch.float64), algorithm.last
    assert torch.allclose(algorithm.x, pi @ last, rtol=1e-10)
    algorithm.lost(2)
    there = [0, 1, 3]
    assert torch.allclose(algorithm.x, pi[there] @ last[there] / pi[there].sum(), rtol=1e-10)
    algorithm.receive(0, torch.ones_like(algorithm.x))
    assert torch.allclose(algorithm.x, pi[there] @ last[there] / pi[there].sum(), rtol=1e-10)
    algorithm.joined(2)
    assert torch.equal(last[2], algorithm.x)
    assert torch.allclose(algorithm.x, pi @ last, rtol=1e-10)


def test_workers_agree_as_steps_decrease() -> None:
    algorithm = method(set_up("algo=async_ps", "algo.solver=svrg", "algo.decay=5", "model.l2=1", *UNEVEN))
    apart = []
    for t in range(800):
        algorithm.round(t)
        apart.append(algorithm.disagreement())
    assert apart[-1] < 1e-3 * max(apart[:10])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["network.compute.seconds=0"], "network.compute.seconds=0: algo=async_ps on the virtual clock needs to know"),
        (["network.compute.kind=measured"], "network.compute.kind=measured: whose message comes first"),
        (["launch.inject=true"], "launch.inject=true: there is no process to sleep; give launch=torchrun, or false"),
        (["compress=powersgd"], "compress: PowerSGD takes a sum over all workers"),
        (["comm.exchange=all_reduce"], "comm.exchange=all_reduce: algo=async_ps exchanges with a server; give auto"),
        (["algo.aggregation=mean"], "algo.aggregation=mean: unknown; give latest or pairwise"),
        (["algo.solver=saga"], "algo.solver=saga: unknown; give sgd or svrg"),
        (["algo.iterations=0"], "algo.iterations=0: must not be less than 1"),
        (["algo.shares=none"], "algo.shares=none: unknown; give equal or samples"),
        (["algo=ssp", "algo.bound=-1"], "algo.bound=-1: must not be negative"),
        (["algo=async_sgd", "algo.epoch=0"], "algo.epoch=0: must not be less than 1"),
        (["algo=async_sgd", "+algo.iterations=2"], "algo.iterations=2: every gradient is sent; give 1"),
    ],
)
def test_mistakes(words: list[str], says: str) -> None:
    with pytest.raises(UserError) as refused:
        set_up("algo=async_ps", *words)
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["launch.inject=true"], "network.compute.seconds=0: launch.inject=true needs to know what a gradient takes"),
        (["algo.slice=0.1"], "network.compute.seconds=0: algo.slice=0.1 needs to know what a gradient takes"),
        (["compress=powersgd"], "compress: PowerSGD takes a sum over all workers"),
    ],
)
def test_mistakes_in_a_process(words: list[str], says: str) -> None:
    made = plan(*CANCER, "algo=async_ps", "network.compute.seconds=0", *words)
    links = WorkerEndpoint(1, 5, timedelta(seconds=1), asynchronous=True)
    with pytest.raises(UserError) as refused:
        ExperimentSetup(made, torch.device("cpu"), Run(Path("none")), links)
    assert str(refused.value).startswith(says)


def test_a_slice_of_time_holds_more_steps_of_a_fast_worker() -> None:
    algorithm = method(set_up("algo=async_ps", "algo.slice=0.1", *UNEVEN))
    assert isinstance(algorithm, AsyncPS)
    assert algorithm.steps == [10, 5, 2, 1]
