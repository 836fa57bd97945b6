"""Gradient tracking: the mean of y is that of v, and what it leads to on real data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from algorithms.gossip_world import CPU, SEED, N, class_of, go, world
from registry import options, plan

from commexp.algorithms.decentralised.tracking import GradientTracking
from commexp.compressors import Compressor, Sign, TopK
from commexp.experiment.setup import ExperimentSetup
from commexp.problems.logistic import Logistic
from commexp.run_folder import Run
from commexp.topologies import Gossip, Ladder, Topology

TRACKING = {name: class_of(name) for name in options("algo") if issubclass(class_of(name), GradientTracking)}


def variant(name: str) -> GradientTracking:
    made = TRACKING[name](lr=0.3)
    for key, value in {"q": 3, "large_batch": 10, "initial_batch": 10}.items():
        if hasattr(made, key):
            setattr(made, key, value)
    assert isinstance(made, GradientTracking)
    return made


def check_means(name: str, topology: Topology, gossip: Gossip, codec: Compressor | None = None) -> None:
    algorithm, made = variant(name), world(topology, gossip, codec, debug=True)

    def after(t: int) -> None:
        apart = (algorithm.y.mean(0) - algorithm.v.mean(0)).abs().max()
        assert float(apart) <= 1e-10, (t, float(apart))

    go(algorithm, made, 4, after)
    assert float(algorithm.y.abs().max()) > 1e-2
    assert float((algorithm.y - algorithm.v).abs().max()) > 1e-4, "y is v: nothing was tracked"


@pytest.mark.parametrize("rounds", [1, 5])
@pytest.mark.parametrize("topology", options("topology"))
def test_the_mean_of_y_is_the_mean_of_v(topology: str, rounds: int, graphs: dict[str, Callable[..., Topology]]) -> None:
    """In every round; also with weights that are lazy, links that fail, and messages that are compressed."""
    directed = topology in ("exponential", "one_peer", "directed_exponential", "directed_file")
    kinds: list[dict[str, Any]] = [{}, {"lazy": True}] if directed else [{}, {"lazy": True}, {"failure": 0.3}]
    assert len(TRACKING) == 5
    for name in TRACKING:
        for fields in kinds if rounds == 1 else kinds[-1:]:
            check_means(name, graphs[topology](**fields), Gossip(rounds=rounds))
        if rounds == 1 and topology not in ("one_peer", "directed_exponential", "random_pairs"):
            for codec in (TopK(k=3), Sign()):
                check_means(name, graphs[topology](), Gossip(), codec)
    if directed:
        with pytest.raises(ValueError, match=r"^failure=0.3: failing links of a directed graph .*; give 0"):
            graphs[topology](failure=0.3).mixings(N, SEED)


@pytest.mark.parametrize("name", TRACKING)
def test_debug_finds_a_mean_that_is_lost(name: str) -> None:
    for debug in (True, False):
        algorithm, made = variant(name), world(Ladder(), debug=debug)

        def spoil(t: int, algorithm: GradientTracking = algorithm) -> None:
            if t == 4:
                algorithm.y[2, 5] += 1e-6

        if debug:
            with pytest.raises(AssertionError, match=r"^round 6: mean y and mean v differ by 1.25e-07"):
                go(algorithm, made, 8, spoil)
        else:
            go(algorithm, made, 8, spoil)


def test_l1_logistic_regression_agrees_with_scikit_learn(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    w, rounds = 0.05, 2500
    made = plan(
        "algo=proxgt_sr_e", "dataset=breast_cancer", "model=logistic_regression", "partition=by_class", "prox=l1",
        f"prox.weight={w}", "topology=ladder", "batch_size=16", "algo.lr=2.0", "dtype=float64", f"rounds={rounds}",
    )  # fmt: skip
    setup = ExperimentSetup(made, CPU, Run(tmp_path / "none"))
    problem = setup.problem
    assert isinstance(problem, Logistic)
    found = {}
    for t in range(rounds):
        setup.comm.begin_round(t + 1)
        setup.algorithm.round(t)
        setup.comm.end_round()
        if (t + 1) % 500 == 0:
            x_now = setup.algorithm.model()
            found[t + 1] = {**problem.evaluate(x_now), **problem.composite(x_now)}
    stationarity = [each["stationarity"] for each in found.values()]
    assert found[500]["stationarity"] <= 1e-5
    assert all(later < earlier for earlier, later in pairwise(stationarity))
    assert stationarity[-1] < 1e-10
    assert not (tmp_path / "none").exists()

    data = made.dataset.load(N, 0, torch.float64)
    a, y = data.train_x.double().numpy(), data.train_y.numpy()
    oracle = LogisticRegression(
        l1_ratio=1, solver="saga", C=1 / (w * len(a)), fit_intercept=False, tol=1e-10, max_iter=100_000
    )
    oracle.fit(a, y, sample_weight=problem.shares.numpy() * len(a))
    x = oracle.coef_[0]
    margins = (2 * y - 1) * (a @ x)
    best = float(problem.shares.numpy() @ np.logaddexp(0, -margins) + w * np.abs(x).sum())
    assert problem.evaluate(torch.from_numpy(x))["objective"] == pytest.approx(best, rel=1e-12)
    assert found[rounds]["objective"] == pytest.approx(best, rel=1e-6)
    assert found[rounds]["nonzero"] == (np.abs(x) > 1e-6).mean() < 0.5
    assert setup.algorithm.diagnostics()["consensus"] < 1e-6
