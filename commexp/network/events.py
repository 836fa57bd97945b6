"""The virtual clock of asynchronous methods: whose message comes next, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from commexp.network.coding import NO_CODING, Coding
from commexp.network.link import Network
from commexp.network.straggler import Straggler
from commexp.seeding import numpy_generator

KEPT = 50  # cycles of each worker whose spans are kept, for the figure of the first seconds


class Span(NamedTuple):
    """What worker ``worker`` did from ``start`` to ``end``, in seconds: ``compute`` or ``wait``, transfers included."""

    worker: int
    kind: str
    start: float
    end: float


def packed(spans: Sequence[Span]) -> np.ndarray:
    """Spans as numbers, four each."""
    return np.array([(s.worker, s.kind == "compute", s.start, s.end) for s in spans], dtype=np.float64).ravel()


def unpacked(numbers: np.ndarray) -> list[Span]:
    rows = numbers.reshape(-1, 4).tolist()
    return [Span(int(worker), "compute" if computes else "wait", start, end) for worker, computes, start, end in rows]


class EventClock:
    """A server and N workers with a link each; the server's link is one of the network's class.

    A worker that has been served computes so many gradients, each as long as ``network.compute`` draws for this worker
    and cycle, times the slowdown where the straggler model makes it late in that cycle. Then its message goes to the
    server, and when the server has processed it, an answer comes back. With beta the slower rate of the two links of a
    transfer in bytes/s and alpha the worker's latency:

        up      begins alpha after the worker is ready, or when the server has received what came before;  B / beta
        down    begins when the server's own link is free;  alpha + B / beta

    A worker encodes its message after computing, and the server decodes one after the other (``coding``).
    So transfers share the server's link in the order of arrival. Between regions the server stands at worker 0's site.
    Where the network changes, a message has the latency of the moment at which it sets out, times a jitter of its own,
    and ``Changes`` says how long latencies and bytes take. ``now``: when the server processed the last message.
    ``idle``, ``busy``: seconds of each worker, [N]. Everything is a function of the seed and what has been sent; no
    message is ``overwritten``.
    """

    def __init__(
        self, network: Network, straggler: Straggler, workers: int, seed: int, coding: Coding = NO_CODING
    ) -> None:
        self.coding = coding
        self.network, self.straggler, self.workers, self.seed = network, straggler, workers, seed
        self.factors = network.compute.factors(workers)
        straggler.late(1, workers, seed)
        self.rates = rates = network.rates(workers)
        down, up = network.server_rates()
        self.into, self.out = np.minimum(rates.up, down), np.minimum(rates.down, up)
        self.latency_up = self.latency_down = rates.latency / 1e3
        if rates.sites is not None:
            sites, server = rates.sites, rates.sites.place[0]
            self.into = np.minimum(self.into, sites.rate[sites.place, server])
            self.out = np.minimum(self.out, sites.rate[server, sites.place])
            self.latency_up = np.maximum(self.latency_up, sites.latency[sites.place, server] / 1e3)
            self.latency_down = np.maximum(self.latency_down, sites.latency[server, sites.place] / 1e3)
        self.changes = network.changes(seed)
        self.now = self.received = self.answered = 0.0
        self.ready = np.full(workers, math.inf)  # when its message sets out, of a worker that computes
        self.arriving = np.full(workers, math.inf)  # when it comes to the server's link
        self.cycles = np.zeros(workers)
        self.sizes = np.zeros(workers)
        self.since = np.zeros(workers)  # when it was last ready
        self.busy, self.idle, self.overwritten = (np.zeros(workers) for _ in range(3))
        self.spans: list[Span] = []

    def serve(self, worker: int, gradients: float, down: int, up: int) -> None:
        """The worker gets ``down`` bytes, computes ``gradients`` of a batch, and will send ``up`` bytes."""
        begun = max(self.now, self.answered)
        cycle = int(self.cycles[worker]) + 1
        self.answered = self._moved(begun, down / self.out[worker])
        start = self._waited(self.answered, worker, cycle, self.latency_down, "down")
        seconds = self.computing(worker, cycle, gradients) + self.coding.encode * self.factors[worker]
        self.cycles[worker], self.sizes[worker], self.ready[worker] = cycle, up, start + seconds
        self.arriving[worker] = self._waited(start + seconds, worker, cycle, self.latency_up, "up")
        self._note(worker, cycle, start, seconds)

    def _note(self, worker: int, cycle: int, start: float, seconds: float) -> None:
        """The worker has waited until ``start``, and then computes for ``seconds``."""
        self.idle[worker] += start - self.since[worker]
        self.busy[worker] += seconds
        if cycle <= KEPT:
            self.spans.append(Span(worker, "wait", float(self.since[worker]), float(start)))
            self.spans.append(Span(worker, "compute", float(start), float(start + seconds)))
        self.since[worker] = start + seconds

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        """The workers whose messages the server processes next: the first to come, and all that come at the same
        moment; or, where ``every`` is given, those workers, when the last of them has come. Raises RuntimeError where
        no worker is at work."""
        came: list[int] = []
        while np.isfinite(self.ready).any():
            under_way = np.where(np.isfinite(self.ready), self.arriving, math.inf)
            worker = int(np.argmin(under_way))  # of several the first
            arrival = float(max(self.arriving[worker], self.received))
            arrival = self._moved(arrival, self.sizes[worker] / self.into[worker])
            if came and not every and arrival > self.received:
                break
            self.received = arrival
            self.ready[worker] = math.inf
            came.append(worker)
            if every and set(every) <= set(came):
                break
        if not came:
            raise RuntimeError("no worker is at work")
        self.now = max(self.now, self.received) + len(came) * self.coding.decode
        return sorted(came)

    def _waited(self, begun: float, worker: int, cycle: int, latency: np.ndarray, way: str) -> float:
        """When a message of the worker's that sets out at ``begun`` has waited for its latency."""
        if self.changes is None:
            return float(begun + latency[worker])
        seconds, now = float(latency[worker]), self.changes.latency(begun)
        if now is not None and not self.rates.own[worker]:
            seconds = float(now) / 1e3
        return float(self.changes.waited(begun, self.changes.jitter(worker, cycle, way) * seconds))

    def _moved(self, begun: float, seconds: float) -> float:
        """When what takes so long at the network's own bandwidth has been carried."""
        return float(begun + seconds if self.changes is None else self.changes.moved(begun, seconds))

    def computing(self, worker: int, cycle: int, gradients: float) -> float:
        """Seconds that so many gradients of a batch take the worker in cycle 1, 2, ..."""
        compute, count = self.network.compute, math.ceil(gradients)
        if not count:
            return 0.0
        rng = numpy_generator(self.seed, "compute", "worker", worker, cycle)
        each = compute.law(rng, (1, count))[0]
        each[-1] *= gradients - (count - 1)
        late = self.straggler.late(cycle, self.workers, self.seed)[worker]
        return float(each.sum() * self.factors[worker] * (self.straggler.slowdown if late else 1.0))

    def round(self, number: int, gradients: float, traffic: Sequence[object], measured: float = 0.0) -> None:
        """Nothing to do: ``serve`` and ``arrivals`` have moved the clock."""

    @property
    def times(self) -> np.ndarray:
        """The clock's state, for a checkpoint."""
        return self._kept()

    @times.setter
    def times(self, kept: np.ndarray) -> None:
        self._restore(kept)

    def _kept(self) -> np.ndarray:
        head = [self.now, self.received, self.answered]
        rows = [self.ready, self.cycles, self.sizes, self.since, self.busy, self.idle]
        return np.concatenate([head, *rows, packed(self.spans)])

    def _restore(self, kept: np.ndarray) -> None:
        self.now, self.received, self.answered = map(float, kept[:3])
        end = 3 + 6 * self.workers
        rows = kept[3:end].reshape(6, self.workers).copy()
        self.ready, self.cycles, self.sizes, self.since, self.busy, self.idle = rows
        self.spans = unpacked(kept[end:])
        for worker in np.flatnonzero(np.isfinite(self.ready)).tolist():
            cycle = int(self.cycles[worker])
            self.arriving[worker] = self._waited(self.ready[worker], worker, cycle, self.latency_up, "up")
