"""Windows of a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.feeds.base import Feed, common_rows, with_replacement
from commexp.problems.tokens import Tokens
from commexp.problems.trees import Tree
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

    def batch(self, step: int) -> Tree:
        return self._shifted(self.sampler.batch(step), "window", step)

    def fresh(self, step: int, size: int) -> Tree:
        context = self.context
        rows = with_replacement(context.own, context.worker_ids, size, context.seed, step)
        return self._shifted(rows, "fresh window", step)

    def _shifted(self, rows: Tensor, purpose: str, step: int) -> Tree:
        """The samples ``rows`` [W, b], each begun at a random token."""
        block, seed = self.train_x.block, self.context.seed
        shifts = [
            torch.randint(block, (rows.shape[1],), generator=generator(seed, purpose, n, step))
            for n in self.context.worker_ids
        ]
        return self._placed(self.train_x, rows * block + torch.stack(shifts) * self._may_shift[rows])

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
