"""The virtual clock: when each worker has ended what, on a network that need not exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from commexp.network.link import Network
from commexp.network.straggler import NoStragglers, Straggler

Links = tuple[Sequence[int], Sequence[int]]  # receivers, senders


class Booked(Protocol):
    """An exchange as the ledger has it."""

    @property
    def exchange(self) -> str: ...
    @property
    def direction(self) -> str: ...
    @property
    def workers(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    @property
    def bytes_wire(self) -> int: ...


class VirtualClock:
    """``times`` [N]: the second at which each worker has ended its last round.

    A worker begins a round where its last one ended. It computes as long as ``network.compute`` draws, times the
    slowdown where the straggler model makes it late; then the round's exchanges follow, one after the other, each as
    long as ``Network.seconds`` says. An exchange of all begins when the last of them is ready and ends for all at
    once. In gossip each worker waits for its own neighbours, at each mixing: ``links`` says who they are; without it,
    for all. Everything is a function of the seed and the round's number, so a run can be priced anew from its books.
    """

    def __init__(
        self, network: Network, straggler: Straggler, workers: int, seed: int, links: Links | None = None
    ) -> None:
        self.network, self.straggler, self.workers, self.seed = network, straggler, workers, seed
        network.compute.factors(workers)  # refuses what does not fit
        straggler.late(1, workers, seed)
        even = network.compute.kind in ("constant", "measured") and not network.compute.slow
        self.even = even and isinstance(straggler, NoStragglers)  # all workers are always at the same second
        self.times = np.zeros(workers)
        self.links = None if links is None else tuple(np.asarray(ends, dtype=np.int64) for ends in links)
        self.share: float | None = None
        if self.links is not None and len(self.links[1]):
            degrees = np.bincount(self.links[1], minlength=workers)
            self.share = float(degrees.max() / degrees.sum())

    @property
    def now(self) -> float:
        """When the last worker has ended."""
        return float(self.times.max())

    def round(self, number: int, gradients: float, booked: Sequence[Booked], measured: float = 0.0) -> None:
        """Round ``number`` = 1, 2, ...: every worker computes ``gradients`` of a batch, then what was ``booked``
        follows. ``measured``: seconds for which a worker was busy in this round on this machine."""
        if self.even:
            compute = self.network.compute
            computing = gradients * compute.seconds if compute.kind == "constant" else measured
            self.times = self.times + (computing + sum(self._seconds(entry) for entry in booked))
            return
        seconds_each = self.network.compute_seconds(number, gradients, self.workers, self.seed, measured)
        if seconds_each.any():
            late = self.straggler.late(number, self.workers, self.seed)
            seconds_each = seconds_each * np.where(late, self.straggler.slowdown, 1.0)
        ready = self.times + seconds_each
        for entry in booked:
            seconds = self._seconds(entry)
            if entry.exchange != "gossip" or self.links is None:
                ready = np.full_like(ready, ready.max() + seconds)
                continue
            for _ in range(entry.repeats if np.ptp(ready) else 1):
                begun = ready.copy()
                np.maximum.at(begun, self.links[0], ready[self.links[1]])
                ready = begun
            ready = ready + seconds
        self.times = ready

    def _seconds(self, entry: Booked) -> float:
        e, share = entry, self.share if entry.exchange == "gossip" else None
        return self.network.seconds(e.exchange, e.workers, e.bytes_wire, e.repeats, e.direction, share)
