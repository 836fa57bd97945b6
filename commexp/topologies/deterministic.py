"""Graphs that are determined by the number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commexp.topologies.base import Topology, graph_of_edges, require_workers

if TYPE_CHECKING:
    import networkx as nx

COMPLETE = 2000  # more workers would need over half a gigabyte for the links


@dataclass
class Complete(Topology):
    """All pairs are linked: W = 11^T/N, lambda = 0. At most 2,000 workers."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        if workers > COMPLETE:
            links = f"{workers * (workers - 1) // 2:,} links"
            raise ValueError(
                f"workers={workers}: a complete graph has {links}; give at most {COMPLETE}, or another topology"
            )
        return [graph_of_edges(workers, np.stack(np.triu_indices(workers, 1), axis=1))]


@dataclass
class Ring(Topology):
    """n is linked with n + 1 mod N: lambda = 1/3 + 2/3 cos(2 pi/N) from N = 3 on."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        require_workers(workers, 2, "a ring")
        n = np.arange(workers)
        return [graph_of_edges(workers, np.stack([n, (n + 1) % workers], axis=1))]


@dataclass
class Line(Topology):
    """n is linked with n + 1; the ends have one neighbour: lambda = 1/3 + 2/3 cos(pi/N) from N = 3 on."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        require_workers(workers, 2, "a line")
        n = np.arange(workers - 1)
        return [graph_of_edges(workers, np.stack([n, n + 1], axis=1))]


@dataclass
class Star(Topology):
    """Worker 0 is linked with all others: lambda = 1 - 1/N from N = 3 on."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        require_workers(workers, 2, "a star")
        n = np.arange(1, workers)
        return [graph_of_edges(workers, np.stack([0 * n, n], axis=1))]


@dataclass
class Hypercube(Topology):
    """Workers are linked if their numbers differ in exactly one of D binary digits, N = 2^D: lambda = (D - 1)/(D +
    1)."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        digits = workers.bit_length() - 1
        if workers != 1 << digits:
            raise ValueError(f"workers={workers}: not a power of two; give {1 << digits} or {2 << digits}")
        n, bit = np.meshgrid(np.arange(workers), 1 << np.arange(digits), indexing="ij")
        pairs = np.stack([n.ravel(), (n ^ bit).ravel()], axis=1)
        return [graph_of_edges(workers, pairs[pairs[:, 0] < pairs[:, 1]])]
