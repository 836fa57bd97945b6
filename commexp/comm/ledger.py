"""What every exchange cost, counted where it happens: bytes in the ledger, this process's time by the stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from commexp.comm.exchanges import Bytes, Exchange, exchange_named

#: where a worker's time goes in a round; see Stopwatch
PHASES = ("compute", "encode", "wait", "transfer", "decode")


class Entry(NamedTuple):
    """One exchange in one direction, over all workers: a row of traffic.csv.

    The seconds are those of the whole round, a mean over processes, and stand in the round's first entry.
    """

    round: int
    exchange: str  # its name
    direction: str  # 'peers', 'up' or 'down'
    workers: int
    repeats: int  # exchanges of this kind, one after the other
    bytes_info: float
    bytes_sent: int
    bytes_wire: int
    compute_seconds: float = 0.0
    encode_seconds: float = 0.0
    wait_seconds: float = 0.0
    transfer_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def kind(self) -> Exchange:
        """Raises ValueError for a name that no exchange has."""
        return exchange_named(self.exchange)


BYTES = Entry._fields.index("bytes_info")  # the first of the columns that add up over processes
BYTES_END = BYTES + 3
EXACT = 2**20  # information is rounded to such parts of a byte, so that sums have the same bits in any order


class Ledger:
    """Entries in the order in which they were counted, and their running totals; ``gossip_rounds``: mixings so far;
    ``bytes_inside``: bytes on links inside ``islands``, where there are any.

    A process counts what its own workers send. ``settle`` adds up what all processes have counted since the last time;
    until then ``entries`` and totals leave it out.
    """

    def __init__(self, islands: int | None = None) -> None:
        self.round, self.islands = 0, islands
        self._pending: list[Entry] = []
        self._first = 0  # the place in it of the first entry of the last round
        self.restore([])

    def count(self, exchange: Exchange, direction: str, workers: int, load: Bytes, repeats: int = 1) -> None:
        """``load``: of this process's workers, in ``repeats`` exchanges one after the other among ``workers``."""
        if not self._pending or self._pending[-1].round != self.round:
            self._first = len(self._pending)
        self._pending.append(Entry(self.round, exchange.name, direction, workers, repeats, *load))

    def count_again(self, exchange: Exchange, direction: str, workers: int, load: Bytes) -> None:
        """The same; where the round's last entry is of the same kind, it becomes one exchange more of that entry."""
        last = self._pending[-1] if self._pending else None
        if last is None or last[:4] != (self.round, exchange.name, direction, workers):
            self.count(exchange, direction, workers, load)
            return
        self._pending[-1] = last._replace(
            repeats=last.repeats + 1,
            bytes_info=last.bytes_info + load.info,
            bytes_sent=last.bytes_sent + load.sent,
            bytes_wire=last.bytes_wire + load.wire,
        )

    def close_round(self, seconds: Mapping[str, float]) -> None:
        """Stores where the round's time went."""
        if self._pending and self._pending[-1].round == self.round:
            counted = self._pending[self._first][:BYTES_END]
            self._pending[self._first] = Entry._make([*counted, *(seconds.get(phase, 0.0) for phase in PHASES)])

    def drop_from(self, number: int) -> None:
        """Forgets this round and what came after; none of it may have been settled."""
        self._pending = [e for e in self._pending if e.round < number]

    def settle(self, add_up: Callable[[Tensor], Tensor], processes: int = 1) -> list[Entry]:
        """Adds up over processes by ``add_up``, which all of them call together; returns the new entries."""
        new, self._pending = self._pending, []
        if new and processes > 1:
            sums = add_up(torch.tensor([e[BYTES:] for e in new], dtype=torch.float64)).tolist()
            new = [
                Entry._make([*e[:BYTES], info, int(sent), int(wire), *(s / processes for s in seconds)])
                for e, (info, sent, wire, *seconds) in zip(new, sums, strict=True)
            ]
        new = [e._replace(bytes_info=round(e.bytes_info * EXACT) / EXACT) for e in new]
        self.entries += new
        self.gossip_rounds += sum(e.repeats for e in new if e.kind.among_neighbours)
        self.bytes_info += sum(e.bytes_info for e in new)
        self.bytes_sent += sum(e.bytes_sent for e in new)
        self.bytes_wire += sum(e.bytes_wire for e in new)
        self.bytes_inside += sum(e.bytes_wire for e in new if e.kind.inside)
        return new

    def totals(self) -> dict[str, float]:
        """With islands also ``bytes_between``: those on the links between them."""
        totals = {"bytes_info": self.bytes_info, "bytes_sent": self.bytes_sent, "bytes_wire": self.bytes_wire}
        if self.islands is None:
            return totals
        return {**totals, "bytes_between": 0 if self.islands == 1 else self.bytes_wire - self.bytes_inside}

    def restore(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of a traffic.csv for all that was counted so far."""
        self.entries: list[Entry] = []
        self.bytes_info, self.bytes_sent, self.bytes_wire, self.bytes_inside = 0.0, 0, 0, 0
        self.gossip_rounds = 0
        self._pending = [Entry(**row) for row in entries]
        self.settle(lambda x: x)


class Stopwatch:
    """Seconds of this process in each phase of a round.

        compute     gradients, updates, and whatever is not below
        encode      from the gradient to the message
        wait        from having a message ready until the slowest process has one, too; a server for messages
        transfer    the rest of the time in exchanges
        decode      from the messages to the aggregate

    Phases follow each other: ``to`` ends one and begins the next. When the slowest process was ready is known from the
    Agreement, which begins with the round's first message: the moment at which its sums arrived (``everyone_ready``).
    In rounds without an Agreement, wait and transfer have the proportion of the last round with one. A transfer that
    runs while gradients are computed counts only from when the process waits for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._phase, self._since = "compute", time.perf_counter()
        self._first_transfer: float | None = None
        self._share = 0.0  # of the time in exchanges that was waiting

    def start(self) -> None:
        self.seconds = {}
        self._phase, self._since, self._first_transfer = "compute", time.perf_counter(), None

    def to(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        if phase == "transfer" and self._first_transfer is None:
            self._first_transfer = now
        self._phase, self._since = phase, now

    def stop(self, everyone_ready: float | None = None) -> dict[str, float]:
        """The round's seconds; ``everyone_ready`` on the clock of time.perf_counter, None if that is not known."""
        self.to("compute")
        both = self.seconds.get("transfer", 0.0)
        if everyone_ready is not None and self._first_transfer is not None and both:
            self._share = min(max(0.0, everyone_ready - self._first_transfer), both) / both
        waited = self.seconds.get("wait", 0.0) + self._share * both
        self.seconds |= {"wait": waited, "transfer": (1 - self._share) * both}
        return self.seconds
