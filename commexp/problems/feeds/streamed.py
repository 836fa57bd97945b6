"""Photos that are decoded while earlier ones are in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.datasets.photos import Photos
from commexp.problems.feeds.base import Feed, Sampler, common_rows
from commexp.problems.feeds.prefetch import Key, Prefetcher
from commexp.problems.trees import Tree
from commexp.seeding import derive


class Streamed(Feed):
    """Photos, prefetched by ``Photos.loaders`` processes; with 0 this process decodes them on demand."""

    def __init__(self, data: Data, context: ProblemContext) -> None:
        super().__init__(data, context)
        assert isinstance(data.train_x, Photos)
        self.train_x: Photos = data.train_x
        self.test_x: Photos | None = data.test_x
        common = partial(_common_keys, context.shards, self.batch_size, context.seed)
        self._own, self._common = self._prefetcher(), Prefetcher(self.train_x, common, context.device)

    def _prefetcher(self) -> Prefetcher:
        own = partial(_own_keys, self.sampler, self.context, self.train_x.augment)
        return Prefetcher(self.train_x, own, self.context.device)

    def for_workers(self, rows: Sequence[int]) -> Streamed:
        some = super().for_workers(rows)
        assert isinstance(some, Streamed)
        some._own = some._prefetcher()
        return some

    def batch(self, step: int) -> Tree:
        x, y = self._chunk(self.train_x, *self._own(step))
        shape = len(self.context.worker_ids), self.batch_size
        return x.view(*shape, *x.shape[1:]), y.view(*shape)

    def common(self, step: int) -> Tree:
        return self._chunk(self.train_x, *self._common(step))

    def example(self) -> Tree:
        """Two black photos of the first class: no file is decoded for them."""
        x = torch.zeros(2, *self.train_x.shape[1:], dtype=self.context.dtype, device=self.context.device)
        return x, torch.zeros(2, dtype=torch.long, device=self.context.device)

    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Tree]:
        photos = self.train_x if train else self.test_x
        if photos is None or not len(rows):
            return
        chunks = list(self._split(rows, photos.shape[1:]))
        prefetcher = Prefetcher(
            photos, lambda i: [(index, None) for index in chunks[i].tolist()], self.context.device, len(chunks)
        )
        for i in range(len(chunks)):
            yield self._chunk(photos, *prefetcher(i))

    def _chunk(self, photos: Photos, pixels: Tensor, rows: Tensor) -> Tree:
        device = self.context.device
        x = self._normalise(pixels.to(device, non_blocking=True))
        return x, photos.labels[rows].to(device)


def _common_keys(shards: Sequence[Tensor], batch_size: int, seed: int, step: int) -> list[Key]:
    return [(index, None) for index in common_rows(shards, batch_size, seed, step).tolist()]


def _own_keys(sampler: Sampler, context: ProblemContext, augment: bool, step: int) -> list[Key]:
    return [
        (index, derive(context.seed, "augment", worker, step, position) if augment else None)
        for worker, rows in zip(context.worker_ids, sampler.batch(step).tolist(), strict=True)
        for position, index in enumerate(rows)
    ]
