"""Windows of a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.feeds.base import Feed, common_rows
from commexp.problems.tokens import Tokens
from commexp.problems.trees import Tree, tree_map
from commexp.seeding import generator


class Windows(Feed):
    """Batches are tokens [..., T] and the tokens that follow them [..., T].

    A batch takes the worker's windows in a new random order in every epoch, as all feeds do. A window begins at a
    random token of its sample, so that other boundaries are seen in every epoch, unless the next sample is another
    worker's. Evaluations take the windows as they are.
    """

    def __init__(self, data: Data, context: ProblemContext) -> None:
        super().__init__(data, context)
        self.train_x: Tokens = data.train_x
        self.test_x: Tokens | None = data.test_x
        owner = torch.full((self.samples + 1,), -1, dtype=torch.int32)
        for n, rows in enumerate(context.shards):
            owner[rows] = n
        self._may_shift = owner[1:] == owner[:-1]

    def batches(self, steps: range) -> Tree:
        return self._shifted(self.sampler.batches(steps), "window", steps)

    def fresh(self, step: int, size: int) -> Tree:
        rows = self.fresh_rows(step, size)
        return tree_map(lambda t: t[0], self._shifted(rows[None], "fresh window", range(step, step + 1)))

    def _shifted(self, rows: Tensor, purpose: str, steps: range) -> Tree:
        """The samples ``rows`` [s, W, b], each begun at a random token."""
        block, seed = self.train_x.block, self.context.seed
        shifts = [
            torch.randint(block, (rows.shape[2],), generator=generator(seed, purpose, n, step))
            for step in steps
            for n in self.context.worker_ids
        ]
        shift = torch.stack(shifts).view(rows.shape) * self._may_shift[rows]
        return self._placed(self.train_x, rows * block + shift)

    def common(self, step: int) -> Tree:
        rows = common_rows(self.context.shards, self.batch_size, self.context.seed, step)
        return self._placed(self.train_x, rows * self.train_x.block)

    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Tree]:
        tokens = self.train_x if train else self.test_x
        if tokens is None:
            return
        for chunk in torch.split(rows, max(1, 2**14 // tokens.block)) if len(rows) else ():
            yield self._placed(tokens, chunk * tokens.block)

    def _placed(self, tokens: Tokens, starts: Tensor) -> Tree:
        inputs, targets = tokens.windows(starts)
        device = self.context.device
        return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
