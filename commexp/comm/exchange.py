"""The compressed sum of gradients, begun before they are complete where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commexp.comm.cost import wire_share
from commexp.comm.links import Handle, Steps
from commexp.compressors import Compressor

if TYPE_CHECKING:
    from commexp.comm.communicator import Communicator

Ready = Callable[[Tensor, int], None]  # with the gradient [J] and the place from which on it is final
STRETCH = 2**21  # entries that travel together; 8 MiB of fp32


def stretch_of(codec: Compressor, exchange: str, deterministic: bool) -> int | None:
    """How many entries of one worker's gradient may be all-reduced together, ahead of the rest; None where they may
    not: they must be encoded one by one, and added in any order."""
    ahead = codec.entrywise and exchange in ("auto", "all_reduce") and not deterministic
    return STRETCH if ahead else None


def stretch_ends(dim: int, stretch: int | None) -> tuple[float, ...]:
    """For each stretch of a gradient of ``dim`` entries, the share of it that is final when this one goes:
    min(1, s stretch / dim), s = 1, ..., ceil(dim / stretch); 1 alone where there are no stretches."""
    return tuple(min(1.0, s * stretch / dim) for s in range(1, -(-dim // stretch) + 1)) if stretch else (1.0,)


class Exchange:
    """sum_n w_n C(a_n) of this process's vectors a [W, J] and every other's, in two calls:

        exchange = comm.begin(compressor, weights, dim)
        _, gradient = problem.loss_and_grad(x, batch, exchange.ready)
        aggregate = exchange.finish(gradient)

    While the backward pass goes on it may call ``ready``. Where the compressor encodes entry by entry, the process
    has one worker and the vector is long, stretches of the gradient are encoded and sent from the end on, as soon as
    they are final, each one's encoding while the one before travels. Else everything is done in ``finish``.
    """

    def __init__(self, comm: Communicator, compressor: Compressor, weights: Tensor, dim: int) -> None:
        self.comm, self.compressor, self.weights = comm, compressor, weights
        #: for ``loss_and_grad``; None where nothing can go ahead
        self.ready: Ready | None = self._send if dim > STRETCH and comm.streams(compressor, len(weights)) else None
        self._begun: list[tuple[Handle, Steps[Tensor]]] = []
        self._bits = 0.0
        self._left: int | None = None  # entries that have not been sent

    def _send(self, gradient: Tensor, start: int) -> None:
        """The entries from ``start`` on of the gradient [J] are final."""
        self._left = len(gradient) if self._left is None else self._left
        while self._left and start <= max(0, self._left - STRETCH):
            begin = max(0, self._left - STRETCH)
            stretch = gradient[None, begin : self._left]
            if not bool(stretch.sum().isfinite()):
                stretch = torch.zeros_like(stretch)  # the round will not count
            message = self.compressor.encode(stretch)
            self._bits += message.info_bits
            steps = self.comm.stretch(message, self.weights)
            self._begun.append((next(steps), steps))
            self._left = begin

    def finish(self, vectors: Tensor) -> Tensor:
        """[W, J] -> the aggregate [J], known to every worker; tells the compressor, too."""
        comm, compressor = self.comm, self.compressor
        comm.watch.to("encode")
        if self._left is None:
            aggregate = comm.aggregate(compressor.encode(vectors), self.weights)
        else:
            self._send(vectors[0], 0)
            size = compressor.payload(vectors.shape[1], vectors.element_size())
            wire = wire_share("all_reduce", comm.size, comm.worker_ids[0], size)
            comm.ledger.book("all_reduce", "peers", comm.size, self._bits / 8, size, wire)
            aggregate = torch.cat(comm.drive(*self._begun)[::-1])
        compressor.feedback(aggregate, self.weights)
        return aggregate
