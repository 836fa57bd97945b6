"""The interface of a topology: the graph of each round and its mixing weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commexp.topologies.mixing import Mixing, components
from commexp.topologies.weights import column, metropolis, uniform

if TYPE_CHECKING:
    import networkx as nx

WEIGHTS = {"metropolis": metropolis, "uniform": uniform, "column": column}


@dataclass(kw_only=True)
class Topology(ABC):
    """A dataclass whose fields are the hyper-parameters.

    ``weights``: metropolis, which is doubly stochastic on every undirected graph; uniform, for regular graphs; or
    column, for push-sum on every graph, directed or not.
    ``lazy``: (I + W)/2 instead of W. ``failure``: the probability that a link fails in a round, independently per link.
    """

    weights: str = "metropolis"
    lazy: bool = False
    failure: float = 0.0

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights={self.weights}: unknown; give one of {', '.join(WEIGHTS)}")
        if not 0 <= self.failure < 1:
            raise ValueError(f"failure={self.failure}: out of range; give a probability in [0, 1)")

    @abstractmethod
    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        """A graph for each round of the period, with nodes 0, ..., N-1. In a directed graph, an edge (n, m) means that
        n sends to m. Raises ValueError if there is no such graph for this number of workers.
        """

    def mixings(self, workers: int, seed: int) -> list[Mixing]:
        """A mixing matrix for each round of the period, before any link fails.

        Raises ValueError if there is none for this number of workers, if the union of the graphs over the period is not
        connected, or if ``failure`` is set for a directed graph.
        """
        made = self.weighted(workers, seed)
        if self.lazy:
            made = [m.lazy() for m in made]
        component = components(sum(abs(m.matrix) for m in made))
        others = np.flatnonzero(component != component[0])
        if len(others):
            between = "path between them" if all(m.symmetric for m in made) else "path both ways between them"
            raise ValueError(
                f"topology: not connected: workers 0 and {others[0]} have no {between}; give a connected graph"
            )
        if self.failure and not all(m.symmetric for m in made):
            raise ValueError(
                f"failure={self.failure}: failing links of a directed graph would change the average; give 0, "
                "or an undirected graph"
            )
        return made

    def weighted(self, workers: int, seed: int) -> list[Mixing]:
        """The mixing matrices with the chosen ``weights``, before ``lazy``."""
        return [WEIGHTS[self.weights](graph) for graph in self.graphs(workers, seed)]


def require_workers(workers: int, least: int, shape: str) -> None:
    """Raises ValueError if there are fewer than ``least`` workers."""
    if workers < least:
        raise ValueError(f"workers={workers}: {shape} has {least} or more; give {least} or more")


def graph_of_edges(workers: int, pairs: np.ndarray, directed: bool = False) -> nx.Graph | nx.DiGraph:
    """The graph of ``workers`` nodes with an edge for each row (n, m) of ``pairs``; skips rows with n = m."""
    import networkx as nx

    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(range(workers))
    graph.add_edges_from(pairs[pairs[:, 0] != pairs[:, 1]].tolist())
    return graph
