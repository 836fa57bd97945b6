"""D2 against gossip SGD, and the weights on which it would diverge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from algorithms.gossip_world import CPU, ROUNDS, J, N, exchange, go, logistic, workers_of, world

from commexp.algorithms import D2, DPSGD, AlgorithmContext
from commexp.compressors import NoCompression
from commexp.problems.base import ProblemContext
from commexp.problems.datasets import LinReg
from commexp.problems.least_squares import LeastSquares
from commexp.topologies import Gossip, Hypercube, MatrixFile, Ring, Topology


def least_squares() -> LeastSquares:
    data = LinReg(dim=J, samples=30).load(N, 0, torch.float64)
    assert data.shards is not None
    return LeastSquares(data, ProblemContext(data.shards, range(N), None, 0, CPU, torch.float64))


def test_d2_finds_the_optimum_where_gossip_sgd_stands_beside_it() -> None:
    problem = least_squares()
    optimum = problem.optimum()
    distances = {}
    for name, method in {"d2": D2(lr=0.05), "dpsgd": DPSGD(lr=0.05)}.items():
        go(method, world(Ring(lazy=True), problem=problem), 1500)
        distances[name] = float((torch.from_numpy(workers_of(method)) - optimum).norm(dim=1).max())
    assert distances["d2"] < 1e-10
    assert distances["dpsgd"] > 0.1


def weights_with(least: float, path: Path) -> MatrixFile:
    """A ring of eight whose smallest eigenvalue is ``least``."""
    W = np.zeros((8, 8))
    for n in range(8):
        W[n, n] = (1 + least) / 2
        W[n, (n + 1) % 8] = W[n, (n - 1) % 8] = (1 - least) / 4
    np.savetxt(path, W, fmt="%.17g")
    return MatrixFile(path=str(path))


@pytest.mark.parametrize("topology", [Ring(), Ring(weights="uniform"), Hypercube()])
@pytest.mark.parametrize("workers", [4, 8])
def test_d2_refuses_weights_on_which_it_diverges(topology: Topology, workers: int) -> None:
    """Of a ring of an even number the smallest eigenvalue is -1/3."""
    problem = logistic()

    def setup(given: Topology) -> None:
        comm = exchange(given, workers=workers)
        D2().setup(AlgorithmContext(problem, comm, NoCompression(), ROUNDS, torch.zeros(J, dtype=torch.float64)))

    (W,) = topology.mixings(workers, 0)
    assert W.smallest_eigenvalue <= -1 / 3 + 1e-9
    with pytest.raises(ValueError, match=r"^algo=d2: .* eigenvalue of -0\.\d{3}, .*; give topology.lazy=true$"):
        setup(topology)
    setup(type(topology)(weights=topology.weights, lazy=True))


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("least", [-0.9, -0.75, -0.5, -0.3, 0.0])
def test_d2_stays_bounded_on_whatever_it_accepts(least: float, rounds: int, tmp_path: Path) -> None:
    """It is W^K whose eigenvalues count."""
    made = world(weights_with(least, tmp_path / "w.txt"), Gossip(rounds=rounds), problem=least_squares())
    method = D2(lr=0.01)
    if min(least**rounds, 0.0) <= -1 / 3:
        with pytest.raises(ValueError, match=r"^algo=d2: its mixing has an eigenvalue .*; give topology.lazy=true$"):
            method.setup(made)
    else:
        go(method, made, 300)
        assert np.abs(workers_of(method)).max() < 100
