"""Eight workers on a graph with unlike shares of a small logistic regression, and a way to run a method on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from commexp.algorithms import Algorithm, AlgorithmContext
from commexp.algorithms.decentralised.base import DecentralisedMethod
from commexp.comm import Communicator, Ledger
from commexp.compressors import Compressor, NoCompression
from commexp.config.schema import CONF
from commexp.problems import Data, NoProx, Problem, Prox
from commexp.problems.base import ProblemContext
from commexp.problems.logistic import Logistic
from commexp.problems.prox import L1
from commexp.topologies import Gossip, Mixer, Topology

N, J, B, ROUNDS, SEED = 8, 12, 4, 30, 3
SIZES = (9, 13, 20, 7, 11, 16, 8, 12)  # samples of each worker
LR, GAMMA, WEIGHT, L2, NONCONVEX = 0.4, 0.3, 0.01, 0.02, 0.05
Vector = np.ndarray


def shares() -> tuple[Vector, Vector, list[Vector]]:
    """Features [m, J], labels -1 and 1, and each worker's rows: mostly of one class, around a place of its own."""
    rng = np.random.default_rng(0)
    m = sum(SIZES)
    parts = np.split(np.arange(m), np.cumsum(SIZES)[:-1])
    y = np.where(np.arange(m) < m // 2, 1, -1)
    y[rng.choice(m, m // 6, replace=False)] *= -1
    x = rng.standard_normal((m, J)) * np.linspace(0.3, 1.5, J)
    for rows in parts:
        x[rows] += 0.7 * rng.standard_normal(J)
    return x, y, parts


X, Y, PARTS = shares()
CPU = torch.device("cpu")


def logistic(prox: Prox | None = None) -> Logistic:
    parts = [torch.from_numpy(rows) for rows in PARTS]
    data = Data(torch.from_numpy(X), torch.from_numpy(Y))
    made = Logistic(data, ProblemContext(parts, range(N), B, SEED, CPU, torch.float64), None, L2, NONCONVEX)
    made.prox = prox or NoProx()
    return made


def exchange(topology: Topology, gossip: Gossip | None = None, workers: int = N) -> Communicator:
    return Communicator(workers, Ledger(), mixer=Mixer(topology, gossip or Gossip(), workers, SEED))


def world(
    topology: Topology,
    gossip: Gossip | None = None,
    codec: Compressor | None = None,
    problem: Problem | None = None,
    debug: bool = False,
) -> AlgorithmContext:
    problem = problem or logistic(L1(WEIGHT))
    start = torch.linspace(-0.5, 0.5, problem.dim, dtype=torch.float64)
    return AlgorithmContext(problem, exchange(topology, gossip), codec or NoCompression(), ROUNDS, start, debug)


def go(
    algorithm: Algorithm, made: AlgorithmContext, rounds: int = ROUNDS, after: Callable[[int], None] = lambda t: None
) -> None:
    algorithm.setup(made)
    for t in range(rounds):
        made.comm.begin_round(t + 1)
        algorithm.round(t)
        made.comm.end_round()
        after(t)


def workers_of(algorithm: Algorithm) -> Vector:
    assert isinstance(algorithm, DecentralisedMethod)
    x: Vector = algorithm.x.numpy()
    return x


def metropolis_dense(graph: nx.Graph) -> Vector:
    W = np.zeros((len(graph), len(graph)))
    for n, m in graph.edges():
        W[n, m] = W[m, n] = 1 / (1 + max(graph.degree(n), graph.degree(m)))
    return W + np.diag(1 - W.sum(1))


def class_of(name: str) -> type:
    """Of conf/algo/<name>.yaml; of a preset that takes another's class, Algorithm."""
    node: Any = OmegaConf.load(CONF / "algo" / f"{name}.yaml")
    target = node.get("algo", node).get("_target_")
    return Algorithm if target is None else get_class(target)
