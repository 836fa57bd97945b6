"""Grids: workers in rows and columns, numbered row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np

from commexp.topologies.base import Topology, graph_of_edges

if TYPE_CHECKING:
    import networkx as nx


@dataclass
class Grid(Topology):
    """A grid of ``rows`` x N/rows workers, each linked with its right and lower neighbour. ``rows``: null for the shape
    nearest to a square, which needs an N that is not prime; rows=1 is a line.
    """

    rows: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows={self.rows}: must not be less than 1; give 1 or more, or null for nearly a square")

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        return [graph_of_edges(workers, _steps(_numbered(workers, self.rows), around=False))]


@dataclass
class Torus(Grid):
    """A grid in which the last worker of each row and column is linked to the first; rows=1 is a ring. R x C, both >=
    3: lambda = 1/5 (3 + 2 cos(2 pi / max(R, C))).
    """

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        return [graph_of_edges(workers, _steps(_numbered(workers, self.rows), around=True))]


@dataclass
class Ladder(Topology):
    """Two lines of N/2 workers with links between their i-th workers: a grid of two rows."""

    def graphs(self, workers: int, seed: int) -> list[nx.Graph | nx.DiGraph]:
        if workers % 2:
            raise ValueError(
                f"workers={workers}: a ladder's two rails are equally long; give {max(2, workers - 1)} or {workers + 1}"
            )
        return [graph_of_edges(workers, _steps(_numbered(workers, 2), around=False))]


def _numbered(workers: int, rows: int | None) -> np.ndarray:
    """[rows, columns]: the workers' numbers."""
    if rows is not None and workers % rows:
        below = workers // rows * rows
        fits = " or ".join(str(n) for n in (below, below + rows) if n)
        raise ValueError(f"workers={workers}: not a multiple of rows={rows}; give {fits}")
    if rows is None:
        rows = next(r for r in range(math.isqrt(workers), 0, -1) if workers % r == 0)
        if rows == 1:
            fits = "4" if workers < 4 else f"{workers - 1} or {workers + 1}"
            raise ValueError(f"workers={workers}: is prime or too small for several rows; give {fits}, or rows=1")
    return np.arange(workers).reshape(rows, -1)


def _steps(numbers: np.ndarray, around: bool) -> np.ndarray:
    """Pairs (n, m) of neighbours in a row and in a column."""
    pairs = []
    for lines in (numbers, numbers.T):
        following = np.roll(lines, -1, axis=1)
        kept = slice(None) if around else slice(-1)
        pairs.append(np.stack([lines[:, kept].ravel(), following[:, kept].ravel()], axis=1))
    return np.concatenate(pairs)
