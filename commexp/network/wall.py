"""Wall-clock time, where real processes decide whose message comes first."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from commexp.network.events import KEPT, Span, packed, unpacked


class WallClock:
    """Seconds since the run began, without those between two generations of the server.

    ``busy``, ``idle`` and ``spans`` are each worker's, as the server sees it: until its message came, a worker was at
    work for as long as it says, and before that it was idle.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.busy, self.idle, self.overwritten = (np.zeros(workers) for _ in range(3))
        self.cycles = np.zeros(workers)
        self.spans: list[Span] = []
        self._origin = time.monotonic()
        self._since = [0.0] * workers  # when its last message came
        self._told = [0.0] * workers  # how long it had been at work by then, in this generation

    @property
    def now(self) -> float:
        return time.monotonic() - self._origin

    def came(self, worker: int) -> None:
        """A process begins to work as this worker."""
        self._since[worker], self._told[worker] = self.now, 0.0

    def received(self, worker: int, at: float, busy: float, skipped: int = 0) -> None:
        """Its message came at time.monotonic() = ``at``; its process has been at work for ``busy`` seconds in all.
        ``skipped``: messages before it that the server has not read."""
        end, since = at - self._origin, self._since[worker]
        start = max(since, end - (busy - self._told[worker]))
        self._since[worker], self._told[worker] = end, busy
        self.idle[worker] += start - since
        self.busy[worker] += end - start
        self.cycles[worker] += 1
        self.overwritten[worker] += skipped
        if self.cycles[worker] <= KEPT:
            self.spans += [Span(worker, "wait", since, start), Span(worker, "compute", start, end)]

    def round(self, number: int, gradients: float, traffic: Sequence[object], measured: float = 0.0) -> None:
        """Nothing to do: wall-clock time passes."""

    @property
    def times(self) -> np.ndarray:
        """The clock's state, for a checkpoint."""
        return np.concatenate([[self.now], self.busy, self.idle, self.overwritten, self.cycles, packed(self.spans)])

    @times.setter
    def times(self, kept: np.ndarray) -> None:
        self._origin = time.monotonic() - float(kept[0])
        end = 1 + 4 * self.workers
        self.busy, self.idle, self.overwritten, self.cycles = kept[1:end].reshape(4, self.workers).copy()
        self.spans = unpacked(kept[end:])
