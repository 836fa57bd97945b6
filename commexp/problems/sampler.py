"""The order of samples: a function of (seed, worker, step) only, so a checkpoint needs no position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.seeding import generator


class Sampler:
    """Batches of ``batch_size`` samples from each worker's shard, in a new random order in every epoch of that worker.

    A batch that reaches the end of an epoch continues into the next one, so all batches have the same size.
    """

    def __init__(self, shards: Sequence[Tensor], worker_ids: Sequence[int], batch_size: int, seed: int) -> None:
        self.shards, self.worker_ids, self.batch_size, self.seed = shards, worker_ids, batch_size, seed
        self._orders: dict[tuple[int, int], Tensor] = {}

    def for_worker(self, w: int) -> Sampler:
        """The sampler of the ``w``-th local worker."""
        here = slice(w, w + 1)
        return Sampler(self.shards[here], self.worker_ids[here], self.batch_size, self.seed)

    def batch(self, step: int) -> Tensor:
        """Sample indices [W, b] of local step 0, 1, ..."""
        return torch.stack([self._rows(w, step) for w in range(len(self.shards))])

    def _rows(self, w: int, step: int) -> Tensor:
        start, size = step * self.batch_size, len(self.shards[w])
        end = start + self.batch_size
        first, last = start // size, (end - 1) // size
        if first == last:
            return self._order(w, first)[start - first * size : end - first * size]
        stream = torch.cat([self._order(w, epoch) for epoch in range(first, last + 1)])
        return stream[start - first * size : end - first * size]

    def _order(self, w: int, epoch: int) -> Tensor:
        if (w, epoch) not in self._orders:
            self._orders.pop((w, epoch - 2), None)
            g = generator(self.seed, "order", self.worker_ids[w], epoch)
            self._orders[w, epoch] = self.shards[w][torch.randperm(len(self.shards[w]), generator=g)]
        return self._orders[w, epoch]


def common_rows(shards: Sequence[Tensor], size: int, seed: int, step: int) -> Tensor:
    """The common batch of a step, the same in every process: sample indices [size], drawn with replacement from all
    ``shards`` so that the expected loss of the batch is F: if shards differ in size, workers are drawn with equal
    probability."""
    g = generator(seed, "common", step)
    if len({len(rows) for rows in shards}) == 1:
        return torch.randint(sum(map(len, shards)), (size,), generator=g)
    owners = torch.randint(len(shards), (size,), generator=g).tolist()
    places = torch.rand(size, generator=g, dtype=torch.float64).tolist()
    return torch.stack([shards[n][int(place * len(shards[n]))] for n, place in zip(owners, places, strict=True)])


def with_replacement(shards: Sequence[Tensor], worker_ids: Sequence[int], size: int, seed: int, step: int) -> Tensor:
    """Sample indices [W, size], drawn from each worker's shard, independently of a Sampler."""
    streams = [generator(seed, "fresh", n, step) for n in worker_ids]
    return torch.stack([p[torch.randint(len(p), (size,), generator=g)] for p, g in zip(shards, streams, strict=True)])
