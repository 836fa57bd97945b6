"""Whole vectors between workers, uncompressed: mean, gossip, gather, broadcast; and a look that is not booked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor

from commexp.comm.gossip import neighbours
from commexp.comm.ledger import Ledger
from commexp.comm.links import Links, Steps
from commexp.compressors import Message, NoCompression
from commexp.compressors.base import weighted_sum

T = TypeVar("T")


class Vectors(ABC):
    """The part of a Communicator that moves vectors as they are. Tensors have a leading axis of this process's W
    workers."""

    size: int
    worker_ids: range
    ledger: Ledger
    links: Links
    deterministic: bool

    def mean(self, x: Tensor) -> Tensor:
        """[W, ...] -> mean over all workers, [...]: a dense all-reduce."""
        message = NoCompression().encode(x.flatten(1))
        weights = x.new_full((len(x),), 1.0 / self.size)
        return self._wait(self._aggregate("all_reduce", message, weights)).view(x.shape[1:])

    def gossip(self, x: Tensor, mixing: Tensor) -> Tensor:
        """[W, J] -> row n of the result is sum_m mixing[n, m] x_m, for this process's workers n; ``mixing`` [N, N].
        Every worker sends its x to each neighbour: to whoever has a weight for it that is not zero."""
        needs = mixing != 0
        degrees = needs.sum(0) - needs.diagonal().long()
        own = self.worker_ids
        sent = x.numel() * x.element_size()
        wire = int(degrees[own.start : own.stop].sum()) * x[0].numel() * x.element_size()
        self.ledger.book("gossip", "peers", self.size, sent, sent, wire)
        rows = self._wait(neighbours(x, needs, own, self.links))
        ids = sorted(rows)
        everyone = torch.stack([rows[m] for m in ids])
        return torch.stack([weighted_sum(everyone, mixing[n, ids].to(x), self.deterministic) for n in own])

    def gather(self, x: Tensor) -> Tensor:
        """[W, m] -> [N, m], all workers' rows at every worker: an all-gather of a few numbers."""
        sent = x.numel() * x.element_size()
        self.ledger.book("all_gather", "peers", self.size, sent, sent, (self.size - 1) * sent)
        return self._wait(self._gathered(x))

    def broadcast(self, x: Tensor, owner: int) -> Tensor:
        """[W, J] -> x_n of worker n = ``owner``, [J], at every worker: down a tree."""
        here = owner in self.worker_ids
        sent = x[0].numel() * x.element_size() * here
        self.ledger.book("broadcast", "peers", self.size, sent, sent, (self.size - 1) * sent)
        row = x[owner - self.worker_ids.start] if here else torch.empty_like(x[0])
        return self._wait(self.links.broadcast(row, owner // len(self.worker_ids)))

    def watched(self, x: Tensor) -> Tensor:
        """[W, ...] -> [N, ...] on the CPU: all workers' values, for diagnostics; not booked. All processes call it
        together."""
        everyone = torch.zeros(self.size, *x.shape[1:], dtype=x.dtype)
        everyone[list(self.worker_ids)] = x.cpu()
        return self.links.agree(everyone)

    def _gathered(self, x: Tensor) -> Steps[Tensor]:
        packed = yield from self.links.all_gather(x.contiguous().view(torch.uint8).flatten())
        return torch.cat(packed).view(x.dtype).view(self.size, x.shape[1])

    @abstractmethod
    def _aggregate(self, kind: str, message: Message, weights: Tensor) -> Steps[Tensor]: ...

    @abstractmethod
    def _wait(self, steps: Steps[T]) -> T: ...
