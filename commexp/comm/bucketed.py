"""The compressed sum of gradients, begun before they are complete where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commexp.comm.exchanges import Aggregation, Bytes
from commexp.comm.links import Handle, PendingTransfer
from commexp.compressors import Compressor

if TYPE_CHECKING:
    from commexp.comm.communicator import Communicator

Ready = Callable[[Tensor, int], None]  # with the gradient [J] and the place from which on it is final
BUCKET = 2**21  # entries that travel together; 8 MiB of fp32


def bucket_size(codec: Compressor, exchange: Aggregation, deterministic: bool) -> int | None:
    """How many entries of one worker's gradient may be summed together, ahead of the rest; None where they may not:
    they must be encoded one by one, and added in any order."""
    return BUCKET if codec.entrywise and exchange.bucketed and not deterministic else None


def bucket_ends(dim: int, bucket: int | None) -> tuple[float, ...]:
    """For each bucket of a gradient of ``dim`` entries, the share of the gradient that is final when this one goes:
    min(1, s bucket / dim), s = 1, ..., ceil(dim / bucket); 1 alone where there are no buckets."""
    return tuple(min(1.0, s * bucket / dim) for s in range(1, -(-dim // bucket) + 1)) if bucket else (1.0,)


class BucketedSum:
    """sum_n w_n C(a_n) of this process's vectors a [W, J] and every other's, in two calls:

        summed = comm.begin(compressor, weights, dim)
        _, gradient = problem.loss_and_grad(x, batch, summed.ready)
        aggregate = summed.finish(gradient)

    The backward pass may call ``ready``. Where the compressor encodes entry by entry, the process has one worker and
    the vector is longer than a bucket, buckets of the gradient are encoded and sent from the end on, as soon as they
    are final; a bucket is encoded while the one before travels. Else ``finish`` does everything.
    """

    def __init__(self, comm: Communicator, compressor: Compressor, weights: Tensor, dim: int) -> None:
        self.comm, self.compressor, self.weights = comm, compressor, weights
        self.exchange = comm.choose(compressor, dim, weights.element_size()).exchange
        ahead = comm.links.collective and len(weights) == 1 and dim > BUCKET
        ahead = ahead and bucket_size(compressor, self.exchange, comm.deterministic) is not None
        #: for ``loss_and_grad``; None where nothing can go ahead
        self.ready: Ready | None = self._send if ahead else None
        self._begun: list[tuple[Handle, PendingTransfer[Tensor]]] = []
        self._bits = 0.0
        self._left: int | None = None  # entries that have not been sent

    def _send(self, gradient: Tensor, start: int) -> None:
        """The entries from ``start`` on of the gradient [J] are final."""
        self._left = len(gradient) if self._left is None else self._left
        while self._left and start <= max(0, self._left - BUCKET):
            begin = max(0, self._left - BUCKET)
            bucket = gradient[None, begin : self._left]
            if not bool(bucket.sum().isfinite()):
                bucket = torch.zeros_like(bucket)  # the round will not count
            message = self.compressor.encode(bucket)
            self._bits += message.info_bits
            transfer = self.exchange.carry(self.comm.transport, message, self.weights)
            self._begun.append((next(transfer), transfer))
            self._left = begin

    def finish(self, vectors: Tensor) -> Tensor:
        """[W, J] -> the aggregate [J], known to every worker; the compressor is told, too."""
        comm, compressor = self.comm, self.compressor
        comm.watch.to("encode")
        if self._left is None:
            aggregate = comm.aggregate(compressor.encode(vectors), self.weights)
        else:
            self._send(vectors[0], 0)
            size = compressor.payload(vectors.shape[1], vectors.element_size())
            wire = self.exchange.wire(comm.worker_ids[0], size, comm.size)
            bytes_here = Bytes(self._bits / 8, size, wire)
            comm.ledger.count(self.exchange, self.exchange.direction, comm.size, bytes_here)
            aggregate = torch.cat(comm.drive(*self._begun)[::-1])
        compressor.feedback(aggregate, self.weights)
        return aggregate
