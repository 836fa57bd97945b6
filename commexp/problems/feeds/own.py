"""Samples of a user's own, of any structure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.feeds.base import Feed, common_rows
from commexp.problems.items import Items
from commexp.problems.trees import Tree, joined, tree_map
from commexp.seeding import derive, global_draws

CPU = torch.device("cpu")


class Own(Feed):
    """Trees of tensors. Real numbers take the run's dtype, integers and truth values stay as they are. Samples in
    memory are kept on the device; a Dataset is asked for every sample when it is needed. What it draws at random from
    the global generators of torch, NumPy and Python, it draws from a stream of the worker and the step."""

    def __init__(self, data: Data, context: ProblemContext) -> None:
        super().__init__(data, context)
        self.train_x, self.test_x = data.train_x, data.test_x
        self._trees = {
            id(items): tree_map(self._place, items.tree)
            for items in (self.train_x, self.test_x)
            if items is not None and items.tree is not None
        }

    def _place(self, t: Tensor) -> Tensor:
        return t.to(self.context.device, self.context.dtype if t.is_floating_point() else t.dtype)

    def batch(self, step: int) -> Tree:
        if self.train_x.tree is not None:
            return super().batch(step)
        return self._of_workers(self.sampler.batch(step), "samples", step)

    def batches(self, steps: range) -> Tree:
        return self._in_memory(self.sampler.batches(steps))

    def fresh(self, step: int, size: int) -> Tree:
        return self._of_workers(self.fresh_rows(step, size), "fresh samples", step)

    def _of_workers(self, rows: Tensor, purpose: str, step: int) -> Tree:
        """The samples ``rows`` [W, b]."""
        ids = self.context.worker_ids
        if self.train_x.tree is not None:
            return self._in_memory(rows)
        each = [
            self._take(self.train_x, own, derive(self.context.seed, purpose, n, step))
            for n, own in zip(ids, rows, strict=True)
        ]
        return joined([tree_map(lambda t: t[None], one) for one in each])

    def _in_memory(self, rows: Tensor) -> Tree:
        """The samples ``rows`` [...] of those in memory."""
        flat = self._take(self.train_x, rows.flatten(), 0)
        return tree_map(lambda t: t.view(*rows.shape, *t.shape[1:]), flat)

    def common(self, step: int) -> Tree:
        seed = self.context.seed
        rows = common_rows(self.context.shards, self.batch_size, seed, step)
        return self._take(self.train_x, rows, derive(seed, "common samples", step))

    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Tree]:
        items = self.train_x if train else self.test_x
        if items is None:
            return
        seed = derive(self.context.seed, "evaluated samples")
        for chunk in self._split(rows, items.shape[1:] or (1,)):
            yield self._take(items, chunk, seed)

    def _take(self, items: Items, rows: Tensor, seed: int) -> Tree:
        """The samples ``rows`` [k]."""
        tree = self._trees.get(id(items))
        if tree is not None:
            here = rows.to(self.context.device)
            return tree_map(lambda t: t[here], tree)
        with all_global_draws(seed):
            return tree_map(self._place, items.take(rows))


@contextmanager
def all_global_draws(seed: int) -> Iterator[None]:
    """As ``global_draws``, for NumPy's and Python's global generators, too."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with global_draws(seed, CPU):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
