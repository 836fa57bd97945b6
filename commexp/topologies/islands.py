"""Islands: groups of workers with fast links inside and slow ones between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Optional

import numpy as np

from commexp.topologies.base import Topology, graph_of_edges

if TYPE_CHECKING:
    import networkx as nx


@dataclass
class Islands(Topology):
    """N workers in ``islands`` = G groups of m = N/G neighbours by number, 0..m-1, m..2m-1, ... The first of each
    leads.

    Methods that exchange with all workers treat each island as one worker: its members share a gradient, or average
    their models (algo.inside), and the leaders exchange, compressed, for all. See comm/islands.py.
    As a graph for gossip, the members of an island are all linked with each other, and so are the leaders.
    Raises ValueError for a number of islands that is not given, less than 1, or does not divide N.
    """

    islands: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.islands is None:
            raise ValueError("islands=null: how many are there? give islands=4, or another divisor of workers")
        if self.islands < 1:
            raise ValueError(f"islands={self.islands}: must not be less than 1; give a divisor of workers")

    def members(self, workers: int) -> int:
        """m, the workers of each island."""
        assert self.islands is not None
        if workers % self.islands:
            raise ValueError(f"islands={self.islands}: {workers} workers cannot be shared out evenly; give a divisor")
        return workers // self.islands

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        members = self.members(workers)
        leaders = range(0, workers, members)
        pairs = [pair for first in leaders for pair in combinations(range(first, first + members), 2)]
        return [graph_of_edges(workers, np.array([*pairs, *combinations(leaders, 2)], dtype=np.int64).reshape(-1, 2))]
