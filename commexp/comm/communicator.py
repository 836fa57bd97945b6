"""Collectives over N workers; every call books itself in the ledger."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.comm.cost import check_exchange, peer_wire_bytes
from commexp.comm.ledger import Ledger
from commexp.compressors import Compressor, Message
from commexp.compressors.sparse import answer_size


class Communicator:
    """N workers in one process (P = 1, W = N): the exchanges are sums over the leading worker axis.

    ``exchange``: how messages are aggregated. ``auto``: an all-reduce where the compressor's messages sum, an
    all-gather where they do not. ``server``: up to a parameter server and the aggregate back down, as entries or
    dense, whichever is smaller.
    ``deterministic``: sums run in worker order, so that other splits of the same N agree bit for bit.
    """

    def __init__(self, workers: int, ledger: Ledger, exchange: str = "auto", deterministic: bool = False) -> None:
        check_exchange(exchange)
        self.size = workers
        self.worker_ids = range(workers)
        self.ledger = ledger
        self.exchange = exchange
        self.deterministic = deterministic

    def mean(self, x: Tensor) -> Tensor:
        """[W, ...] -> mean over all workers, [...]: a dense all-reduce."""
        sent = x.numel() * x.element_size()
        self.ledger.book("all_reduce", "peers", self.size, sent, sent, peer_wire_bytes("all_reduce", self.size, sent))
        return self._sum(x, x.new_full((len(x),), 1.0 / self.size))

    def aggregate(self, message: Message, weights: Tensor) -> Tensor:
        """sum over all workers of w_n decode(message_n): [J], for this process's messages and weights [W].

        Every worker has the result afterwards.
        """
        codec = message.codec
        kind = carrier(codec, self.exchange)
        while True:
            self._book(kind, message)
            total = self._sum(codec.parts(message), weights) if self.deterministic else codec.add_up(message, weights)
            following = codec.proceed(message, total)
            if following is None:
                break
            if kind == "server":
                self._book_answer(total)
            message = following
        aggregate = codec.conclude(message, total)
        if kind == "server":
            self._book_answer(aggregate)
        return aggregate

    def _book(self, kind: str, message: Message) -> None:
        """``message``: of all workers."""
        direction = "up" if kind == "server" else "peers"
        wire = peer_wire_bytes(kind, self.size, message.nbytes)
        self.ledger.book(kind, direction, self.size, message.info_bits / 8, message.nbytes, wire)

    def _book_answer(self, answer: Tensor) -> None:
        """What a server sends back to every worker: as entries, or dense."""
        nbytes, bits = answer_size(int(torch.count_nonzero(answer)), len(answer), answer.element_size())
        self.ledger.book("server", "down", self.size, self.size * bits / 8, self.size * nbytes, self.size * nbytes)

    def _sum(self, x: Tensor, weights: Tensor) -> Tensor:
        if not self.deterministic:
            return (weights @ x.flatten(1)).view(x.shape[1:])
        total = torch.zeros_like(x[0])
        for w, row in zip(weights, x, strict=True):
            total += w * row
        return total


def carrier(compressor: Compressor, exchange: str) -> str:
    """The exchange that serves this compressor. Raises ValueError for an unknown exchange or a pair that makes no
    sense."""
    check_exchange(exchange)
    if exchange == "auto":
        return "all_reduce" if compressor.sums else "all_gather"
    if exchange == "all_reduce" and not compressor.sums:
        raise ValueError(
            f"exchange=all_reduce: messages of {compressor.name} cannot be added on the way; give all_gather or server"
        )
    return exchange
