"""Random graphs, drawn with (seed, "topology")."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from commexp.seeding import numpy_generator
from commexp.topologies.base import Topology, graph_of_edges, require_workers

if TYPE_CHECKING:
    import networkx as nx

DRAWS = 100


@dataclass
class RandomTopology(Topology):
    """Draws until a graph is connected, at most 100 times; raises ValueError if none is."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        import networkx as nx

        rng = numpy_generator(seed, "topology")
        for _ in range(DRAWS):
            graph = self.draw(workers, int(rng.integers(2**32)))
            if nx.is_connected(graph):
                return [graph]
        raise ValueError(self.sparse(workers))

    @abstractmethod
    def draw(self, workers: int, seed: int) -> nx.Graph:
        """Draws a graph, which need not be connected."""

    @abstractmethod
    def sparse(self, workers: int) -> str:
        """The error message if no graph was connected."""


@dataclass
class ErdosRenyi(RandomTopology):
    """Each pair is linked with probability ``p``; usually connected if p > ln(N)/N."""

    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p <= 1:
            raise ValueError(f"p={self.p}: out of range; give a probability in (0, 1]")

    def draw(self, workers: int, seed: int) -> nx.Graph:
        import networkx as nx

        return nx.fast_gnp_random_graph(workers, self.p, seed=seed)

    def sparse(self, workers: int) -> str:
        enough = min(1.0, 2 * math.log(workers) / workers)
        return f"p={self.p}: none of {DRAWS} graphs drawn for {workers} workers is connected; give {enough:.2g} or more"


@dataclass
class RandomRegular(RandomTopology):
    """Every worker has ``degree`` neighbours; asymptotically uniform over such graphs. N * degree must be even.

    Source: Steger and Wormald, Generating Random Regular Graphs Quickly, 1999.
    """

    degree: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree < 1:
            raise ValueError(f"degree={self.degree}: must not be less than 1; give a number of neighbours, such as 4")

    def draw(self, workers: int, seed: int) -> nx.Graph:
        import networkx as nx

        if workers <= self.degree:
            raise ValueError(
                f"workers={workers}: too few for degree={self.degree}; give {self.degree + 1} or more, "
                "or a smaller degree"
            )
        if workers * self.degree % 2:
            raise ValueError(
                f"workers={workers}: times degree={self.degree} is odd, and every link has two ends; "
                f"give {workers + 1} or an even degree"
            )
        return nx.random_regular_graph(self.degree, workers, seed=seed)

    def sparse(self, workers: int) -> str:
        return f"degree={self.degree}: none of {DRAWS} graphs drawn for {workers} workers is connected; give 3 or more"


@dataclass
class Geometric(RandomTopology):
    """Workers at random positions in the unit square; two are linked if their distance is at most ``radius``."""

    radius: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radius > 0:
            raise ValueError(f"radius={self.radius}: must be positive; the workers lie in a square of side 1")

    def draw(self, workers: int, seed: int) -> nx.Graph:
        import networkx as nx

        return nx.random_geometric_graph(workers, self.radius, seed=seed)

    def sparse(self, workers: int) -> str:
        enough = math.sqrt(2 * math.log(workers) / (math.pi * workers))
        return (
            f"radius={self.radius}: none of {DRAWS} graphs drawn for {workers} workers is connected; "
            f"give {enough:.2g} or more"
        )


@dataclass
class RandomPairs(Topology):
    """A different graph in each round: the workers are paired at random, and both of a pair have weight 1/2. If their
    number is odd, one of them has no neighbour in a round. ``period`` pairings are drawn, and repeated after so many
    rounds. Raises ValueError for a period below 1."""

    period: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.period < 1:
            raise ValueError(f"period={self.period}: must not be less than 1; give a number of pairings such as 64")

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        require_workers(workers, 2, "a pair")
        rng = numpy_generator(seed, "topology")
        pairings = (rng.permutation(workers)[: workers // 2 * 2].reshape(-1, 2) for _ in range(self.period))
        return [graph_of_edges(workers, pairs) for pairs in pairings]
