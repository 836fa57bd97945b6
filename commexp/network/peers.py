"""The virtual clock of workers that average with one neighbour each, and wait for no other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from commexp.network.coding import Coding
from commexp.network.events import EventClock
from commexp.network.link import Network
from commexp.network.straggler import Straggler


class PeerClock(EventClock):
    """N workers with a link each, and no server. A worker computes as in EventClock. Then it meets another one:

        it sends its vector, and when that is there, the other one sends its own back;  alpha + B / beta each way

    alpha is the larger latency of the two and beta the slower rate of their links (between regions, of that between
    their sites, too). The other one goes on computing meanwhile. Neither takes part in two meetings at a time: who
    wants to meet a worker that is in one waits until it is over, and meetings of a worker follow in the order in which
    they were asked for, so that nobody waits for ever. Where the network changes, see EventClock. ``now``: when the
    last meeting so far was over. A worker that has met nobody goes on at once.
    """

    def __init__(self, network: Network, straggler: Straggler, workers: int, seed: int, coding: Coding) -> None:
        super().__init__(network, straggler, workers, seed, coding)
        self.free = np.zeros(workers)  # when its last meeting is over
        self.met: dict[int, float] = {}  # when a worker has met that has not been served since

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        """The worker that has its gradient first; of several the first. Raises RuntimeError where none is at work."""
        worker = int(np.argmin(self.ready))
        if not np.isfinite(self.ready[worker]):
            raise RuntimeError("no worker is at work")
        self.now = max(self.now, float(self.ready[worker]))
        self.ready[worker] = math.inf
        return [worker]

    def meet(self, worker: int, other: int, size: int) -> None:
        """The worker that has its gradient exchanges vectors of ``size`` bytes with another one."""
        time = float(max(self.since[worker], self.free[worker], self.free[other]))
        for sender, receiver in ((worker, other), (other, worker)):
            ends = np.array([receiver]), np.array([sender])
            now = None if self.changes is None else self.changes.latency(time)
            latency = float(self.rates.latencies(*ends, now if now is None else np.asarray([now]))[0])
            rate = min(self.rates.up[sender], self.rates.down[receiver])
            if self.rates.sites is not None:
                place = self.rates.sites.place
                rate = min(rate, self.rates.sites.rate[place[sender], place[receiver]])
            if self.changes is not None:
                way = "there" if sender == worker else "back"
                latency *= self.changes.jitter(worker, int(self.cycles[worker]), way)
                time = float(self.changes.waited(time, latency))
            else:
                time += latency
            time = self._moved(time, size / rate)
        self.free[worker] = self.free[other] = self.met[worker] = time
        self.now = max(self.now, time)

    def serve(self, worker: int, gradients: float, down: int, up: int) -> None:
        """The worker goes on and computes ``gradients`` of a batch."""
        start, cycle = self.met.pop(worker, float(self.since[worker])), int(self.cycles[worker]) + 1
        seconds = self.computing(worker, cycle, gradients)
        self.cycles[worker], self.ready[worker] = cycle, start + seconds
        self._note(worker, cycle, start, seconds)

    @property
    def times(self) -> np.ndarray:
        """The clock's state between two rounds, for a checkpoint."""
        return np.concatenate([self.free, self._kept()])

    @times.setter
    def times(self, kept: np.ndarray) -> None:
        self.free = kept[: self.workers].copy()
        self._restore(kept[self.workers :])
