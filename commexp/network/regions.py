"""Sites with measured links between them, and which worker stands at which."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

PATHS = ("ring", "pairs", "star")


class Route(NamedTuple):
    """The links between sites that an exchange uses: the largest ``latency`` in ms, the smallest ``rate`` in bytes/s;
    of a server ``up`` to it and ``down`` from it, else both the same."""

    latency: float
    up: float
    down: float

    @property
    def rate(self) -> float:
        return min(self.up, self.down)


@dataclass(frozen=True)
class Sites:
    """The sites of N workers: ``place`` [N], the number of each worker's. ``latency`` in ms and ``rate`` in bytes/s,
    of one pair of workers, [S, S], from the site of the row to that of the column."""

    place: np.ndarray
    latency: np.ndarray
    rate: np.ndarray

    def route(self, ids: np.ndarray, path: str) -> Route:
        """Of an exchange among the workers ``ids``, in the order of their numbers. ``path``: "ring", each sends to the
        next one and the last to the first; "pairs", each to every other; "star", the others to the first and back."""
        place = self.place[ids]
        if path == "star":
            up, down = (place[1:], place[0]), (place[0], place[1:])
            latency = max(self.latency[up].max(), self.latency[down].max())
            return Route(float(latency), float(self.rate[up].min()), float(self.rate[down].min()))
        ends: Any = (place, np.roll(place, -1))
        if path == "pairs":
            present, counts = np.unique(place, return_counts=True)
            a, b = np.meshgrid(present, present, indexing="ij")
            others = (a != b) | (counts > 1)[:, None]  # nobody sends to itself
            ends = (a[others], b[others])
        rate = float(self.rate[ends].min())
        return Route(float(self.latency[ends].max()), rate, rate)


@dataclass
class Regions:
    """Sites, by name, and what lies between any two of them.

    ``latency``: of each site, in milliseconds, to every site, in the order in which the sites are listed; to itself:
    between two workers there. ``bandwidth``: likewise, in Mbit/s, what one pair of workers reaches; other pairs do not
    share it. ``workers``: the site of each worker; where it is empty, they stand in blocks of equal size, worker n of N
    at site floor(n S / N) of S.

    Raises ValueError for rows that are no square matrix, values out of range, and sites that are not listed.
    """

    # OmegaConf takes no whole number for a float within a list within a dict; the lists hold floats once this is made
    latency: dict[str, list[Any]] = field(default_factory=dict)
    bandwidth: dict[str, list[Any]] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.latency or list(self.latency) != list(self.bandwidth):
            given = f"regions.bandwidth={list(self.bandwidth)}"
            raise ValueError(f"{given}: not the sites of regions.latency; give a row for each of {list(self.latency)}")
        self.latency = self._checked("latency", self.latency, "0 or more milliseconds", lambda ms: ms >= 0)
        self.bandwidth = self._checked("bandwidth", self.bandwidth, "Mbit/s above 0", lambda mbit: mbit > 0)
        for site in self.workers:
            if site not in self.latency:
                raise ValueError(f"regions.workers=[{site}]: no such site; give some of {', '.join(self.latency)}")

    def _checked(
        self, name: str, rows: Mapping[str, Sequence[Any]], right: str, fits: Callable[[float], bool]
    ) -> dict[str, list[Any]]:
        for site, row in rows.items():
            given = f"regions.{name}={{{site}:{list(row)}}}"
            if len(row) != len(rows):
                raise ValueError(f"{given}: {len(row)} of {len(rows)} numbers; give one to each site")
            for value in row:
                real = isinstance(value, int | float) and not isinstance(value, bool)
                if not (real and math.isfinite(value) and fits(value)):
                    raise ValueError(f"{given}: {value!r} is out of range; give {right}")
        return {site: list(map(float, row)) for site, row in rows.items()}

    def sites(self, workers: int, headers: float) -> Sites:
        """Of so many workers; ``headers``: bytes that travel with each of ours. Raises ValueError where ``workers``
        names the sites of another number of workers."""
        names = list(self.latency)
        if self.workers and len(self.workers) != workers:
            given = f"network.regions.workers={list(self.workers)}"
            raise ValueError(
                f"{given}: {len(self.workers)} sites for {workers} workers; give one for each, or [] for blocks"
            )
        place = [names.index(site) for site in self.workers] or [n * len(names) // workers for n in range(workers)]
        rate = np.array(list(self.bandwidth.values())) * 1e6 / 8 / (1 + headers)
        return Sites(np.array(place), np.array(list(self.latency.values())), rate)
