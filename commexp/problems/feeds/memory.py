"""Samples in the memory of the device, or, if sparse, in that of the process."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from commexp.problems.augment import Augment
from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.feeds.base import Chunk, Feed
from commexp.problems.sampler import common_rows
from commexp.problems.sparse_rows import SparseRows
from commexp.seeding import generator

DENSE_BYTES = 2**26  # sparse rows are made dense at the start if they then take at most this


class InMemory(Feed):
    """Keeps all samples on the device, images as uint8 if they come as uint8; inputs may be feature vectors [d].

    Sparse rows that would take more than DENSE_BYTES stay sparse on the CPU; each batch or chunk is made dense.
    """

    def __init__(self, data: Data, context: ProblemContext) -> None:
        super().__init__(data, context)
        self.train_x, self.train_y = self._place(data.train_x), data.train_y.to(context.device)
        self.test_x = None if data.test_x is None else self._place(data.test_x)
        self.test_y = None if data.test_y is None else data.test_y.to(context.device)
        self.augment = None if data.augment == Augment() else data.augment

    def _place(self, x: Tensor | SparseRows) -> Tensor | SparseRows:
        dtype = self.context.dtype
        if isinstance(x, SparseRows):
            if x.shape.numel() * dtype.itemsize > DENSE_BYTES:
                return x
            x = x.dense(dtype)
        return x.to(self.context.device, x.dtype if x.dtype == torch.uint8 else dtype)

    def batch(self, step: int) -> Chunk:
        rows = self.sampler.batch(step)
        x, y = self._take(self.train_x, self.train_y, rows.flatten())
        if self.augment is not None:
            seed, (height, width) = self.context.seed, x.shape[-2:]
            streams = [generator(seed, "augment", n, step) for n in self.context.worker_ids]
            draws = torch.cat([self.augment.draw(g, self.batch_size, height, width) for g in streams])
            x = self.augment.apply(x, draws, self.shift)
        return x.view(*rows.shape, *x.shape[1:]), y.view(rows.shape)

    def common(self, step: int) -> Chunk:
        rows = common_rows(self.context.shards, self.batch_size, self.context.seed, step)
        return self._take(self.train_x, self.train_y, rows)

    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Chunk]:
        x, y = (self.train_x, self.train_y) if train else (self.test_x, self.test_y)
        if x is None or y is None:
            return
        for chunk in self._split(rows, x.shape[1:]):
            yield self._take(x, y, chunk)

    def _take(self, x: Tensor | SparseRows, y: Tensor, rows: Tensor) -> Chunk:
        """The samples ``rows`` [k], a tensor on the CPU."""
        device = self.context.device
        here = rows.to(device)
        if isinstance(x, SparseRows):
            return x[rows].dense(self.context.dtype).to(device), y[here]
        return self._normalise(x[here]), y[here]
