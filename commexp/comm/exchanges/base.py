"""What an exchange is: its bytes, its seconds, the messages it serves, and how processes carry it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from commexp.comm.links import PendingTransfer
from commexp.comm.transport import Transport
from commexp.compressors import Compressor, Message
from commexp.network.coding import CodedTraffic
from commexp.network.link import Transfer


class Bytes(NamedTuple):
    """The three byte counts: of information, of payload handed to the exchange, and on all links."""

    info: float
    sent: int
    wire: int


class Exchange(ABC):
    """One way to bring vectors or messages of N workers, with a link each, to each other.

    Exchanges have no state. The ledger stores the name; the virtual clock asks for ``seconds``.
    """

    name: str
    #: the sum of a first part of the vector may begin while the rest is still computed
    bucketed: bool = False
    #: goes from neighbour to neighbour on a graph, so that a worker waits for its neighbours alone
    among_neighbours: bool = False
    #: goes over the links inside islands of workers, in all islands at the same time
    inside: bool = False
    #: who sends to whom: each to the next one ("ring"), each to every other ("pairs"), or all to worker 0 ("star")
    path: str = "ring"

    @abstractmethod
    def hops(self, workers: int) -> int:
        """Latencies, one after the other, of an exchange among so many workers."""

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]:
        """How many messages a worker encodes in ``traffic`` of this kind, and how many are decoded before it has the
        result; parts of messages count by their share of the vector. Vectors that travel as they are take neither."""
        return 0.0, 0.0

    def seconds(self, transfer: Transfer) -> float:
        """Duration of a transfer of B bytes among n workers:

            repeats hops alpha + B / (n beta)

        alpha: the latency of the links' pace; beta: its slowest rate. In every exchange the sum of a part without
        bytes and a part without latency: where the network changes, the clock asks for the two apart.
        Source: Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH, 2005.
        """
        pace, workers, wire, repeats, *_ = transfer
        return self.hops(workers) * (repeats * pace.latency / 1e3) + wire * (1 / workers) / pace.slower


class Aggregation(Exchange):
    """An exchange after which every worker has sum_n w_n decode(message_n): a value of ``comm.exchange``."""

    #: the messages go up and their aggregate comes down; else messages go among peers
    comes_down: bool = False
    #: a server, which lives with worker 0, gets all messages
    central: bool = False
    #: between its phases the processes tell each other how long the next messages are, so that none goes on alone
    sizes_travel: bool = False
    #: the aggregate is that of the messages, and nothing is lost on its way
    exact: bool = True
    #: can sum the messages that have come, without those of late workers
    tolerates_stragglers: bool = False

    @property
    def direction(self) -> str:
        """The one in which messages go, as the ledger names it."""
        return "up" if self.comes_down else "peers"

    def check(self, codec: Compressor) -> None:
        """Raises ValueError for a compressor whose messages it cannot carry."""

    @abstractmethod
    def candidate(self, codec: Compressor) -> bool:
        """Whether ``auto`` considers it for this compressor. Of several it takes the one with the fewest bytes, and
        the first of them where sizes follow the data."""

    @abstractmethod
    def cost(self, workers: int, up: int, down: int) -> int:
        """Bytes on all links for messages of ``up`` bytes and an aggregate of ``down`` bytes."""

    @abstractmethod
    def wire(self, worker: int, size: int, workers: int) -> int:
        """Bytes on all links for the message of ``size`` bytes of one worker of N."""

    def load(self, message: Message, worker_ids: Sequence[int], workers: int) -> Bytes:
        """Of the messages of the workers ``worker_ids`` among N, aggregate aside."""
        sizes = tuple(message.sizes)
        return Bytes(message.info_bits / 8, sum(sizes), on_links(self, tuple(worker_ids), sizes, workers))

    def aggregate_payload(self, codec: Compressor, dim: int, itemsize: int, workers: int) -> int:
        """The most bytes that the aggregate of so many workers can take, in the form in which it is handed on."""
        return codec.payload(dim, itemsize) if codec.sums else codec.aggregate_payload(dim, itemsize, workers)

    def down(self, message: Message, aggregate: Tensor, workers: int) -> Bytes:
        """Of the aggregate that comes down to all N workers."""
        raise NotImplementedError(f"{self.name}: nothing comes down")

    def finalizes(self, codec: Compressor) -> bool:
        """Whether ``carry`` returns the aggregate [J], not the sum [M] from which ``codec.finalize`` makes it."""
        return False

    def total(self, message: Message, weights: Tensor, in_order: bool) -> Tensor:
        """What ``carry`` returns where this process hosts all workers, [M]: the sum, which is still to be finalized."""
        return message.codec.total(message, weights, in_order)

    @abstractmethod
    def carry(self, over: Transport, message: Message, weights: Tensor) -> PendingTransfer[Tensor]:
        """Begins the exchange among processes: the messages and weights [W] of this process's workers -> the sum
        sum_n w_n summands(message_n) [M] over all workers, or the aggregate, see ``finalizes``."""


@lru_cache(maxsize=64)
def on_links(exchange: Aggregation, worker_ids: Sequence[int], sizes: Sequence[int], workers: int) -> int:
    """Bytes on all links for messages of these sizes of the workers ``worker_ids`` among N; mostly the same in every
    round."""
    return sum(exchange.wire(n, size, workers) for n, size in zip(worker_ids, sizes, strict=True))
