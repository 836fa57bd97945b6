"""Single messages between a worker and a server."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.comm.ledger import Ledger
from commexp.comm.stopwatch import Stopwatch
from commexp.compressors import Message


class ToServer:
    """The part of a Communicator that asynchronous methods use: a server that is no worker, and one of them at a time.
    Every message is on one link, so as many bytes travel as are sent."""

    ledger: Ledger
    watch: Stopwatch

    def to_server(self, message: Message) -> Tensor:
        """The message of one worker -> what it stands for, [J], at the server."""
        self.ledger.book("server", "up", 2, message.info_bits / 8, message.nbytes, message.nbytes)
        self.watch.to("decode")
        found = message.codec.reduce(message, torch.ones(1, dtype=message.dtype, device=device_of(message)))
        self.watch.to("compute")
        return found

    def from_server(self, x: Tensor) -> None:
        """x [J] goes to one worker."""
        size = x.numel() * x.element_size()
        self.ledger.book("server", "down", 2, size, size, size)


def device_of(message: Message) -> torch.device:
    """Where its buffers lie."""
    return next(iter(message.buffers.values())).device
