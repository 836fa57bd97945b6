"""Exponential graphs: links over distances that are powers of two, so few neighbours and a small diameter.

Source: Ying, Yuan, Chen, Hu, Pan and Yin, Exponential Graph is Provably Efficient for Decentralized Deep Training,
arXiv 2110.13363, sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commexp.topologies.base import Topology, graph_of_edges, require_workers

if TYPE_CHECKING:
    import networkx as nx


@dataclass
class Exponential(Topology):
    """Directed: n sends to n + 2^i mod N, i = 0, ..., D - 1, where D = ceil(log2 N); every weight is 1/(D + 1).
    For even N, lambda = (D - 1)/(D + 1).
    """

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        require_workers(workers, 2, "an exponential graph")
        n, hop = np.meshgrid(np.arange(workers), _hops(workers), indexing="ij")
        return [graph_of_edges(workers, np.stack([n.ravel(), (n + hop).ravel() % workers], axis=1), directed=True)]


@dataclass
class OnePeer(Topology):
    """Directed, with a different graph in each round: in round t, n receives only from n + 2^(t mod D), D = ceil(log2
    N), and W_t = (I + P_t)/2. For N = 2^D the product of D rounds is the exact average.
    """

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        require_workers(workers, 2, "a one-peer exponential graph")
        n = np.arange(workers)
        return [
            graph_of_edges(workers, np.stack([(n + h) % workers, n], axis=1), directed=True) for h in _hops(workers)
        ]


@dataclass
class DirectedExponential(Topology):
    """Directed, with a different graph in each round, for push-sum: in round t, n sends only to n + 2^(t mod D), D =
    ceil(log2 N), half of what it has. Every worker receives from one other, so that the weights are doubly stochastic.
    Source: Assran, Loizou, Ballas and Rabbat, arXiv 1811.10792, appendix A (1-peer).
    """

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        require_workers(workers, 2, "a directed exponential graph")
        n = np.arange(workers)
        return [
            graph_of_edges(workers, np.stack([n, (n + h) % workers], axis=1), directed=True) for h in _hops(workers)
        ]


def _hops(workers: int) -> np.ndarray:
    return np.asarray(1 << np.arange((workers - 1).bit_length()))
