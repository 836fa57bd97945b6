"""Rounds that do not need every worker: who answers, what that sums up to, and what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from commexp.comm.cost import wire_share
from commexp.comm.ledger import Ledger
from commexp.comm.server import device_of
from commexp.compressors import Compressor, Message

#: from who has answered, bool [N], to each one's weight [N]; None where that is not enough
Weigh = Callable[[np.ndarray], "np.ndarray | None"]
Closes = tuple[int | None, float | None]  # after so many answers, after so many seconds


class Answers(NamedTuple):
    """``answered``: whose message counts, bool [N]. ``weights``: [N], None where there is no sum. ``total``:
    sum_n w_n decode(message_n), [J], zero then."""

    answered: np.ndarray
    weights: np.ndarray | None
    total: Tensor


class Answering(ABC):
    """The part of a Communicator that goes on without those who are late.

    Here all processes are in step, and who is late is only counted so: nothing is booked of them, and their messages
    have no weight. See Served for processes that nobody waits for.
    """

    size: int
    worker_ids: range
    ledger: Ledger

    def call(self, t: int, x: Tensor) -> None:  # noqa: B027
        """Begins round t = 0, 1, ... with x [J] known to the server: asks all workers for their messages at x."""

    def answers(self, message: Message, expected: np.ndarray, closes: Closes, weigh: Weigh) -> Answers:
        """The weighted sum of what has come when the round is closed, known to all. ``message``: of the workers here.
        ``expected``: bool [N], who answers on the virtual clock. ``closes``: what closes the round where real processes
        decide instead."""
        kind = self.carrier(message.codec, message.dim, message.dtype.itemsize)
        here = [(n, size) for n, size in zip(self.worker_ids, message.sizes, strict=True) if expected[n]]
        bits = message.info_bits * sum(size for _, size in here) / max(1, message.nbytes)
        self.book_answers(kind, here, bits, expected)
        weights = weigh(expected)
        own = np.zeros(self.size) if weights is None else weights
        total = self.sum_of_all(message, torch.from_numpy(own[list(self.worker_ids)]).to(message_like(message)))
        total = message.codec.finalize(message, total)
        if kind == "server":
            self.book_down(total)
        return Answers(expected, weights, total)

    def book_answers(self, kind: str, sent: Sequence[tuple[int, int]], bits: float, answered: np.ndarray) -> None:
        """``sent``: worker and bytes, of those here that answer."""
        total = sum(size for _, size in sent)
        wire = sum(wire_share(kind, self.size, n, size) for n, size in sent)
        up = kind == "server"
        taking = 1 + int(answered[1:].sum()) if up else self.size  # worker 0 lives with the server
        self.ledger.book(kind, "up" if up else "peers", taking, bits / 8, total, wire)

    def book_down(self, x: Tensor) -> None:
        """The new x goes to all workers; booked by worker 0's process for all."""
        size = x.numel() * x.element_size() if self.worker_ids[0] == 0 else 0
        self.ledger.book("server", "down", self.size, self.size * size, self.size * size, (self.size - 1) * size)

    @abstractmethod
    def carrier(self, codec: Compressor, dim: int, itemsize: int) -> str: ...

    @abstractmethod
    def sum_of_all(self, message: Message, weights: Tensor) -> Tensor: ...


def message_like(message: Message) -> Tensor:
    """Of the type and on the device of what the message decodes to."""
    return torch.empty(0, dtype=message.dtype, device=device_of(message))
