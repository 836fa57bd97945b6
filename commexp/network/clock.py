"""The virtual clock: when each worker has ended what, on a network that need not exist."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np

from commexp.network.closing import Closing
from commexp.network.coding import NO_CODING, CodedTraffic, Coding
from commexp.network.link import Network, Transfer
from commexp.network.overlap import overlapped
from commexp.network.regions import PATHS
from commexp.network.straggler import NoStragglers, Straggler
from commexp.seeding import numpy_generator

Edges = tuple[Sequence[int], Sequence[int]]  # receivers, senders


class TimedExchange(Protocol):
    """What the clock asks of a kind of exchange, see comm/exchanges: whether it may begin while a gradient is computed
    (``bucketed``), whether a worker waits for its neighbours alone (``among_neighbours``), whether it goes on inside
    islands of workers (``inside``), who sends to whom (``path``, see ``Sites.route``), and its seconds: those that it
    takes without bytes and those without latency, added up."""

    @property
    def bucketed(self) -> bool: ...
    @property
    def among_neighbours(self) -> bool: ...
    def coded(self, traffic: CodedTraffic) -> tuple[float, float]: ...
    @property
    def inside(self) -> bool: ...
    @property
    def path(self) -> str: ...
    def seconds(self, transfer: Transfer) -> float: ...


class Traffic(CodedTraffic, Protocol):
    """One exchange in one direction, as the ledger has it."""

    @property
    def kind(self) -> TimedExchange: ...


class VirtualClock:
    """``times`` [N]: the second at which each worker has ended its last round.

    A worker begins a round where its last one ended. It computes as long as ``network.compute`` draws, for each of the
    subsets that it holds (``loads`` [N], else one), times the slowdown where the straggler model makes it late; then
    the round's exchanges follow, one after the other, each as long as its kind's ``seconds`` says. An exchange of all
    workers begins when the last of them is ready and ends for all at once. In gossip each worker waits for its own
    neighbours, at each mixing: ``edges`` says who they are; without it, for all. Where links differ, each worker
    gossips for as long as ``Rates.gossip`` says, and only those who take part set the pace of the other exchanges.
    Where a ``closing`` is given, the exchange begins without those who have not answered by then; they leave their work
    and begin the next round with the others.
    With ``network.overlap`` a round's all-reduce begins while the gradient is computed, see ``overlapped``;
    ``bucket_ends``: for each bucket of the gradient, the share of the gradient that is final when this one goes.
    ``delays``: for each round, how many gradients of the next one every worker computes while this round's exchanges
    travel. They begin when the last worker is ready, and nobody waits: with T_n the time in which worker n computes g
    gradients in the next round, d of them during the exchange, and E the moment at which it ends,

        the worker is ready at    max(begun + d/g T_n, E) + (1 - d/g) T_n

    Traffic that comes down from such an exchange is counted in that next round, before its own. ``times`` then has one
    more number, the last: E, as far as it is known at the end of a round; 0 where nothing travels.
    With ``islands`` = G groups of N/G workers, one after the other, those of a group add up inside (exchanges inside
    among peers) r times in a round, on links of ``network.inside``. They compute their gradients in r parts and wait
    for each other after each: with T_nj the time in which worker n computes part j,

        the members of a group are ready at    begun + sum_j max over members n of T_nj + r (seconds of one sum)

    All other exchanges are those of the groups' first workers; of a single group, all exchanges go on inside.
    ``coding``: how long a worker encodes and decodes; all of a round comes between its computing and its exchanges.
    Where the network changes, an exchange takes what it would take at the network's own bandwidth and at the latency of
    the moment at which it begins, as ``Changes`` says; so does each bucket, and in gossip each mixing of each worker.
    Links inside islands do not change.
    Everything is a function of the seed and the round's number, so a run can be priced anew from its traffic.
    """

    def __init__(
        self,
        network: Network,
        straggler: Straggler,
        workers: int,
        seed: int,
        edges: Edges | None = None,
        loads: np.ndarray | None = None,
        closing: Closing | None = None,
        bucket_ends: Sequence[float] = (1.0,),
        delays: Sequence[float] = (),
        islands: int | None = None,
        coding: Coding = NO_CODING,
    ) -> None:
        self.network, self.straggler, self.workers, self.seed = network, straggler, workers, seed
        self.loads = np.ones(workers) if loads is None else np.asarray(loads, dtype=np.float64)
        self.closing = closing
        self.bucket_ends = bucket_ends if network.overlap else (1.0,)
        self.coding = coding
        network.compute.factors(workers)  # refuses what does not fit
        straggler.late(1, workers, seed)
        self.rates = network.rates(workers)
        self.islands = islands or workers
        self.leaders = np.zeros(workers, dtype=bool)
        self.leaders[:: workers // self.islands] = True
        self.inside_pace = network.inside_pace()
        self.alike, self.changes = self.rates.alike, network.changes(seed)
        self.paces = dict.fromkeys(PATHS, self.rates.pace(self.leaders))
        if self.rates.sites is not None:
            self.paces = {path: self.rates.pace(self.leaders, path) for path in PATHS}
        if islands == 1:
            self.alike, self.changes, self.paces = True, None, dict.fromkeys(PATHS, self.inside_pace)
        elif network.trace is not None and self.rates.own.any():
            self.alike = False  # they are so for as long as the network's latency stays what it is
        if self.rates.sites is not None and np.ptp(self.rates.sites.place.reshape(self.islands, -1), axis=1).any():
            raise ValueError(
                "network.regions: the workers of an island stand at several sites; give network.regions.workers with "
                "one site for each island"
            )
        even = network.compute.kind in ("constant", "measured") and not network.compute.slow
        self.delays = delays if any(delays) else ()
        even = even and np.ptp(self.loads) == 0 and closing is None and self.alike and len(self.bucket_ends) == 1
        even = even and not self.delays and self.changes is None
        self.even = even and isinstance(straggler, NoStragglers)  # all workers are always at the same second
        self.times = np.zeros(workers + bool(self.delays))
        self.edges: tuple[np.ndarray, ...] | None = None
        if edges is not None and len(edges[1]):
            self.edges = tuple(np.asarray(ends, dtype=np.int64) for ends in edges)
        self.share: float | None = None  # of a gossip's bytes, on the busiest link
        if self.edges is not None:
            degrees = np.bincount(self.edges[1], minlength=workers)
            self.share = float(degrees.max() / degrees.sum())

    @property
    def now(self) -> float:
        """When the last worker has ended."""
        return float(self.times[: self.workers].max())

    def answered(self, number: int, gradients: float = 1.0) -> np.ndarray:
        """Who answers before round ``number`` is closed, bool [N]; everyone where everyone is waited for."""
        if self.closing is None:
            return np.ones(self.workers, dtype=bool)
        return self._closed(number, gradients, 0.0)[0]

    def computing(self, number: int, gradients: float, measured: float = 0.0) -> np.ndarray:
        """How long each worker computes in round ``number``, [N], in seconds."""
        seconds = self._each(number, gradients, measured).sum(axis=1)
        return np.asarray(seconds * self._slowdown(number)) if seconds.any() else seconds

    def _each(self, number: int, gradients: float, measured: float) -> np.ndarray:
        """The same, gradient by gradient, if nobody were late, [N, count]."""
        return self.network.compute_seconds(number, gradients * self.loads, self.seed, measured * self.loads)

    def _slowdown(self, number: int) -> np.ndarray:
        """How many times as long each worker computes in round ``number``, [N]."""
        return np.where(self.straggler.late(number, self.workers, self.seed), self.straggler.slowdown, 1.0)

    def _together(self, number: int, gradients: float, measured: float, sums: Sequence[Traffic]) -> np.ndarray:
        """How long each worker computes until its island has added up the last of its ``sums``, [N]."""
        each = self._each(number, gradients, measured) * self._slowdown(number)[:, None]
        width = max(1, -(-each.shape[1] // sum(entry.repeats for entry in sums)))
        parts = np.add.reduceat(each, np.arange(0, each.shape[1], width), axis=1)
        slowest = parts.reshape(self.islands, -1, parts.shape[1]).max(axis=1).sum(axis=1)
        return np.repeat(slowest, self.workers // self.islands) + sum(self._seconds(entry) for entry in sums)

    def _closed(self, number: int, gradients: float, measured: float) -> tuple[np.ndarray, float]:
        assert self.closing is not None
        seconds = self.computing(number, gradients, measured)
        late = self.straggler.late(number, self.workers, self.seed)
        usual = float(seconds.max()) / self.straggler.slowdown
        tie_break = numpy_generator(self.seed, "turn", number).permutation(self.workers)
        return self.closing.closed(np.where(self.loads > 0, seconds, np.inf), late, usual, tie_break)

    def round(self, number: int, gradients: float, traffic: Sequence[Traffic], measured: float = 0.0) -> None:
        """Round ``number`` = 1, 2, ...: every worker computes ``gradients`` of a batch of each subset that it holds,
        then the ``traffic`` of the round follows. ``measured``: seconds for which this machine was busy in this round
        with one subset of one worker."""
        if self.even:
            compute, load = self.network.compute, float(self.loads[0])
            alike = gradients * load * compute.seconds if compute.kind == "constant" else measured * load
            alike += self.coding.seconds(traffic)
            self.times = self.times + (alike + sum(self._seconds(entry) for entry in traffic))
            return
        computing = np.zeros(self.workers)
        sums = [entry for entry in traffic if entry.kind.inside and entry.direction == "peers"]
        if sums:
            traffic = [entry for entry in traffic if entry not in sums]
            computing = self._together(number, gradients, measured, sums)
        elif self.closing is None:
            computing = self.computing(number, gradients, measured)
        if self.delays:
            self._delayed_round(number, gradients, traffic, computing)
            return
        answered: np.ndarray | None = None
        coding = self._coding(traffic)
        if self.closing is None:
            ready = self.times + computing + coding
        else:
            answered, took = self._closed(number, gradients, measured)
            ready = np.full_like(self.times, self.now + took) + coding
        for place, entry in enumerate(traffic):
            if entry.kind.bucketed and place == 0:
                carried = partial(self._end, entry, (number, place))
                ready = np.full_like(ready, overlapped(self.times, ready, gradients, self.bucket_ends, carried))
            elif entry.kind.among_neighbours and self.edges is not None:
                gossiped = self._gossiped if self.changes is None else partial(self._gossiped_in_time, (number, place))
                ready = gossiped(entry, ready, *self.edges)
            else:
                end = self._end(entry, (number, place), float(ready.max()), answered=answered)
                ready = np.full_like(ready, end)
        self.times = ready

    def _coding(self, traffic: Sequence[Traffic]) -> np.ndarray:
        """How long each worker encodes and decodes in a round with this ``traffic``, [N]."""
        return self.network.compute.factors(self.workers) * self.coding.seconds(traffic)

    def _delayed_round(self, number: int, gradients: float, traffic: Sequence[Traffic], computing: np.ndarray) -> None:
        """A round of a run with ``delays``; ``computing``: seconds of each worker, [N]."""
        coding = self._coding(traffic)
        *begun, last = self.times
        before = self.delays[number - 2] if number > 1 else 0.0
        came_down, arrival = 0, float(last)
        if before:
            came_down = next((i for i, entry in enumerate(traffic) if entry.direction != "down"), len(traffic))
            arrival = self._end_of_all(traffic, slice(0, came_down), number, arrival)
            first = computing * (before / gradients)
            ready = np.maximum(begun + first, arrival) + (computing - first) + coding
        else:
            ready = begun + computing + coding
        end = self._end_of_all(traffic, slice(came_down, None), number, float(ready.max()))
        self.times = np.append(ready, end) if self.delays[number - 1] else np.append(np.full_like(ready, end), 0.0)

    def _gossiped(self, entry: Traffic, ready: np.ndarray, receivers: np.ndarray, senders: np.ndarray) -> np.ndarray:
        """When each worker has ended a gossip for which it is ``ready``, [N]."""
        if self.alike:
            mixings, each, whole = entry.repeats if np.ptp(ready) else 1, np.zeros(1), self._seconds(entry)
        else:
            each = self.rates.gossip(entry.bytes_wire, entry.repeats, receivers, senders)
            mixings, whole = entry.repeats, 0.0
        for _ in range(mixings):
            begun = ready.copy()
            np.maximum.at(begun, receivers, ready[senders])
            ready = begun + each
        return ready + whole

    def _gossiped_in_time(
        self, key: tuple[int, int], entry: Traffic, ready: np.ndarray, receivers: np.ndarray, senders: np.ndarray
    ) -> np.ndarray:
        """The same on a network that changes: each worker's transfers begin when it and its neighbours are ready."""
        changes = self.changes
        assert changes is not None
        factor, mixings = changes.jitter(*key), entry.repeats
        for _ in range(mixings):
            begun = ready.copy()
            np.maximum.at(begun, receivers, ready[senders])
            if self.alike:
                latency = changes.latency(begun)
                seconds = (self.rates.latency if latency is None else latency) / 1e3
                carrying = self._seconds(entry, without_latency=True) / mixings
                ready = changes.moved(changes.waited(begun, factor * seconds), carrying)
                continue
            transfers = self.rates.transfers(entry.bytes_wire, mixings, receivers, senders)
            ready = begun.copy()
            for ends in (receivers, senders):
                latency = self.rates.latencies(receivers, senders, changes.latency(begun[ends]))
                np.maximum.at(ready, ends, changes.moved(changes.waited(begun[ends], factor * latency), transfers))
        return ready

    def _end_of_all(self, traffic: Sequence[Traffic], which: slice, number: int, begun: float) -> float:
        """When the exchanges ``which`` of round ``number`` have ended, the first of which begins at ``begun``."""
        if self.changes is None:
            return begun + sum(self._seconds(entry) for entry in traffic[which])
        for place in range(len(traffic))[which]:
            begun = self._end(traffic[place], (number, place), begun)
        return begun

    def _end(
        self,
        entry: Traffic,
        key: tuple[int, int],
        begun: float,
        part: float = 1.0,
        answered: np.ndarray | None = None,
    ) -> float:
        """When an exchange has ended that begins at ``begun``, of ``part`` of the entry's bytes. ``key``: the round,
        and the exchange's place in it. ``answered``: who takes part, where not all do."""
        if self.changes is None or entry.kind.inside:
            return begun + self._seconds(entry, part, answered)
        now = self.changes.latency(begun)
        latencies = self._seconds(entry, 0.0, answered, None if now is None else float(now))
        through = self.changes.waited(begun, self.changes.jitter(*key) * latencies)
        return float(self.changes.moved(through, self._seconds(entry, part, answered, without_latency=True)))

    def _seconds(
        self,
        entry: Traffic,
        part: float = 1.0,
        answered: np.ndarray | None = None,
        latency: float | None = None,
        without_latency: bool = False,
    ) -> float:
        """How long it takes at the network's own bandwidth. ``latency``: of the network, in ms, if it is not the usual
        one."""
        e, pace = entry, self.paces[entry.kind.path]
        if e.kind.inside:
            return e.kind.seconds(Transfer(self.inside_pace, e.workers, e.bytes_wire / self.islands, e.repeats))
        fewer = answered is not None and e.workers < self.workers and not self.alike
        if latency is not None or fewer:
            rates = self.rates if latency is None else self.rates.with_latency(latency)
            pace = rates.pace(answered if fewer else self.leaders, e.kind.path)
        if without_latency:
            pace = pace._replace(latency=0.0)
        return e.kind.seconds(Transfer(pace, e.workers, part * e.bytes_wire, e.repeats, e.direction, self.share))
