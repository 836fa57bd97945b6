"""Collectives over N workers; every call books itself in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from commexp.comm.agreement import Agreement
from commexp.comm.answers import Answering
from commexp.comm.cost import check_exchange, choose, wire_share
from commexp.comm.exchange import Exchange, stretch_of
from commexp.comm.ledger import Entry, Ledger
from commexp.comm.links import Handle, Links, Processes, Steps
from commexp.comm.server import ToServer
from commexp.comm.stopwatch import Stopwatch
from commexp.comm.transport import Transport, stretches
from commexp.comm.vectors import Vectors
from commexp.compressors import Compressor, Message
from commexp.compressors.aggregate import aggregate_size
from commexp.topologies.gossip import Mixer

T = TypeVar("T")


class Communicator(Answering, ToServer, Vectors):
    """N workers over P processes, W = N/P in each; ``worker_ids`` are those of this process.

    With one process the exchanges are sums over the leading worker axis; with more they go over ``links``. What is
    booked is the same either way: the exchange of N workers with a link each.

    ``exchange``: how messages are aggregated, one of cost.EXCHANGES; ``auto``: the one with the fewest bytes on the
    links. ``deterministic``: sums run in worker order, so that every split of the same N agrees bit for bit.
    ``ask``: what this process has to say at the end of a round, see Agreement. ``mixer``: who gossips with whom.
    Raises ValueError for an unknown exchange, or N that cannot be divided by P.
    """

    def __init__(
        self,
        workers: int,
        ledger: Ledger,
        exchange: str = "auto",
        deterministic: bool = False,
        links: Links | None = None,
        ask: Callable[[], Sequence[int]] = tuple,
        mixer: Mixer | None = None,
    ) -> None:
        check_exchange(exchange)
        self.links = links or Links()
        if workers % self.links.processes:
            raise ValueError(f"workers={workers}: cannot be spread evenly over {self.links.processes} processes")
        here = workers // self.links.processes
        self.size = workers
        self.worker_ids = range(self.links.rank * here, (self.links.rank + 1) * here)
        self.ledger = ledger
        self.exchange = exchange
        self.deterministic = deterministic
        self.mixer = mixer
        self.watch = Stopwatch()
        self.agreement = Agreement(self.links, ask)
        self._transport = Transport(self.links, deterministic) if isinstance(self.links, Processes) else None

    def begin_round(self, number: int, ask: bool = True, pause: float = 0.0) -> None:
        """``ask``: what comes after this round depends on the answers. ``pause``: seconds that this process sleeps,
        as if it computed."""
        self.ledger.round = number
        self.agreement.begin_round(number, ask)
        self.watch.start()
        if pause:
            time.sleep(pause)

    def end_round(self) -> list[int] | None:
        """Closes the round's books; what all processes together answered to ``ask``, None if they were not asked."""
        answers, ready = self.agreement.end()
        self.ledger.close_round(self.watch.stop(ready))
        return answers

    def settle(self) -> list[Entry]:
        """The entries since the last time, added up over processes, which call this together."""
        return self.ledger.settle(self.links.agree, self.links.processes)

    def carrier(self, codec: Compressor, dim: int, itemsize: int) -> str:
        """The exchange for messages of this codec."""
        if self.exchange != "auto":
            return self.exchange
        return choose(codec, "auto", self.size, dim, itemsize).exchange

    def aggregate(self, message: Message, weights: Tensor) -> Tensor:
        """sum over all workers of w_n decode(message_n): [J], for this process's messages and weights [W].

        Every worker has the result afterwards.
        """
        kind = self.carrier(message.codec, message.dim, message.dtype.itemsize)
        return self._wait(self._aggregate(kind, message, weights))

    def begin(self, compressor: Compressor, weights: Tensor, dim: int) -> Exchange:
        """The compressed sum of vectors [W, J], J = ``dim``, that are yet to come."""
        return Exchange(self, compressor, weights, dim)

    def _aggregate(self, kind: str, message: Message, weights: Tensor) -> Steps[Tensor]:
        codec = message.codec
        while True:
            self._book(kind, message)
            if self._transport is None:
                total = codec.total(message, weights, self.deterministic)
            else:
                total = yield from getattr(self._transport, kind)(message, weights)
            following = codec.next_phase(message, total)
            if following is None:
                break
            self._book_answer(kind, message, total)
            message = following
        answered = kind == "two_phase" or (kind == "server" and not codec.sums)
        aggregate = total if answered and self._transport is not None else codec.finalize(message, total)
        self._book_answer(kind, message, aggregate)
        return aggregate

    def _book(self, kind: str, message: Message) -> None:
        """What this process's workers send."""
        if kind == "two_phase":
            sizes = message.codec.cut_sizes(message, stretches(message.dim, self.size))
            sent = sum(map(sum, sizes))
            wire = sent - sum(row[n] for n, row in zip(self.worker_ids, sizes, strict=True))
        else:
            sent = message.nbytes
            sizes_here = zip(self.worker_ids, message.sizes, strict=True)
            wire = sum(wire_share(kind, self.size, n, size) for n, size in sizes_here)
        direction = "up" if kind in ("server", "two_phase") else "peers"
        self.ledger.book(kind, direction, self.size, message.info_bits / 8, sent, wire)

    def _book_answer(self, kind: str, message: Message, answer: Tensor) -> None:
        """What comes down to the workers; booked by the first process for all."""
        if kind not in ("server", "two_phase"):
            return
        if self.links.rank:
            self.ledger.book(kind, "down", self.size, 0.0, 0, 0)
            return
        if kind == "server":
            size, bits = aggregate_size(answer)
            if message.codec.sums:
                size, bits = message.sizes[0], message.info_bits / message.workers
            sent, bits, wire = self.size * size, self.size * bits, (self.size - 1) * size
        else:
            sent, bits = aggregate_size(answer, stretches(len(answer), self.size)[1])
            wire = (self.size - 1) * sent
        self.ledger.book(kind, "down", self.size, bits / 8, sent, wire)

    def streams(self, codec: Compressor, workers: int) -> bool:
        """Whether stretches of a gradient may go ahead of the rest: one worker here, entries encoded one by one."""
        possible = stretch_of(codec, self.exchange, self.deterministic) is not None
        return possible and self._transport is not None and workers == 1

    def drive(self, *begun: tuple[Handle, Steps[T]]) -> list[T]:
        """Waits for exchanges that have been begun and gives their results. Each one's next step is begun before the
        step after that of another is waited for."""
        self.agreement.begin()
        results: dict[int, T] = {}
        pending = list(enumerate(begun))
        while pending:
            following = []
            for i, (handle, steps) in pending:
                self.watch.to("transfer")
                handle.wait()
                self.watch.to("decode")
                try:
                    following.append((i, (next(steps), steps)))
                except StopIteration as end:
                    results[i] = end.value
            pending = following
        self.watch.to("compute")
        return [results[i] for i in range(len(begun))]

    def sum_of_all(self, message: Message, weights: Tensor) -> Tensor:
        """sum_n w_n summands(message_n) over all workers, every message being sent to everyone; not booked."""
        if self._transport is None:
            return message.codec.total(message, weights, self.deterministic)
        return self._wait(self._transport.all_gather(message, weights))

    def stretch(self, message: Message, weights: Tensor) -> Steps[Tensor]:
        """The all-reduce of a message that stands for a stretch of the vector; not booked."""
        assert self._transport is not None
        return self._transport.all_reduce(message, weights)

    def _wait(self, steps: Steps[T]) -> T:
        """One exchange from its beginning to its end."""
        self.watch.to("decode" if self._transport is None else "encode")
        try:
            handle = next(steps)
        except StopIteration as end:
            self.watch.to("compute")
            result: T = end.value
            return result
        (result,) = self.drive((handle, steps))
        return result
