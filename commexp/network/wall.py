"""The clock where real processes decide whose message comes first: the one on the wall."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from commexp.network.events import KEPT, Span, packed, unpacked


class WallClock:
    """Seconds since the run began, without those between two lives of the server. ``busy``, ``idle``, ``spans``: as
    the server sees it, of each worker: it was at work for as long as it says until its message came, and idle before.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.busy, self.idle, self.overwritten = (np.zeros(workers) for _ in range(3))
        self.cycles = np.zeros(workers)
        self.spans: list[Span] = []
        self._origin = time.monotonic()
        self._since = [0.0] * workers  # when it last spoke
        self._told = [0.0] * workers  # how long it had been at work by then, in this life

    @property
    def now(self) -> float:
        return time.monotonic() - self._origin

    def came(self, worker: int) -> None:
        """A worker begins a life."""
        self._since[worker], self._told[worker] = self.now, 0.0

    def heard(self, worker: int, at: float, busy: float, skipped: int = 0) -> None:
        """Its message came at time.monotonic() = ``at``; it has been at work for ``busy`` seconds in this life.
        ``skipped``: messages before it that nobody has read."""
        end, since = at - self._origin, self._since[worker]
        start = max(since, end - (busy - self._told[worker]))
        self._since[worker], self._told[worker] = end, busy
        self.idle[worker] += start - since
        self.busy[worker] += end - start
        self.cycles[worker] += 1
        self.overwritten[worker] += skipped
        if self.cycles[worker] <= KEPT:
            self.spans += [Span(worker, "wait", since, start), Span(worker, "compute", start, end)]

    def round(self, number: int, gradients: float, booked: Sequence[object], measured: float = 0.0) -> None:
        """Time goes on by itself."""

    @property
    def times(self) -> np.ndarray:
        """All that the clock knows, for a checkpoint."""
        return np.concatenate([[self.now], self.busy, self.idle, self.overwritten, self.cycles, packed(self.spans)])

    @times.setter
    def times(self, kept: np.ndarray) -> None:
        self._origin = time.monotonic() - float(kept[0])
        end = 1 + 4 * self.workers
        self.busy, self.idle, self.overwritten, self.cycles = kept[1:end].reshape(4, self.workers).copy()
        self.spans = unpacked(kept[end:])
