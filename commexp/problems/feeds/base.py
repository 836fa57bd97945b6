"""The base of all feeds."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from commexp.problems.base import ProblemContext, spread
from commexp.problems.data import Data
from commexp.problems.sampler import Sampler, with_replacement

CHUNK = 512  # the largest number of samples in a chunk of an evaluation
VECTORS = 8192  # the same for feature vectors
CHUNK_BYTES = 2**26  # the largest size of a chunk

Chunk = tuple[Tensor, Tensor]


class Feed(ABC):
    """Samples of ``data`` for the workers of ``context``, with its dtype and on its device.

    ``samples``: m, the training samples of all workers together. Draws depend only on the seed, the worker and the
    step: not on W or P, on earlier calls, or on the number of decoding processes.
    """

    def __init__(self, data: Data, context: ProblemContext) -> None:
        if context.batch_size is None:
            raise ValueError("batch_size=null: these data are fed in mini-batches; give a number such as 16")
        self.samples = len(data.train_x)
        self.context, self.batch_size = context, context.batch_size
        self.sampler = Sampler(context.own, context.worker_ids, self.batch_size, context.seed)
        self.train_y, self.test_y = data.train_y, data.test_y
        self.scale = self.shift = None
        if data.mean is not None and data.std is not None:  # (x / 255 - mean) / std = scale x + shift
            mean, std = (t.to(torch.float64) for t in (data.mean, data.std))
            place = {"device": context.device, "dtype": context.dtype}
            self.scale, self.shift = (1 / (255 * std)).to(**place), (-mean / std).to(**place)  # type: ignore[call-overload]

    def for_worker(self, w: int) -> Feed:
        """A feed of the same samples for the ``w``-th local worker only."""
        one = copy.copy(self)
        one.context = replace(self.context, worker_ids=self.context.worker_ids[w : w + 1])
        one.sampler = self.sampler.for_worker(w)
        return one

    @abstractmethod
    def batch(self, step: int) -> Chunk:
        """Inputs [W, b, ...] and targets [W, b] of local step 0, 1, ..., augmented."""

    @abstractmethod
    def common(self, step: int) -> Chunk:
        """Inputs [b, ...] and targets [b] of the common batch, see sampler.common_rows; not augmented."""

    def train(self, at_most: int | None) -> Iterator[Chunk]:
        """Chunks of inputs [c, ...] and targets [c]: all training samples in order, or a fixed choice of ``at_most`` of
        them, evenly spread; not augmented. c is at most CHUNK, and the inputs take at most about CHUNK_BYTES."""
        m = self.samples
        few = at_most is not None and at_most < m
        return self._chunks(True, spread(m, at_most) if few else torch.arange(m))  # type: ignore[arg-type]

    def chosen(self, rows: Tensor) -> Iterator[Chunk]:
        """The training samples ``rows`` in chunks; not augmented."""
        return self._chunks(True, rows)

    def test(self) -> Iterator[Chunk]:
        """The test set in chunks; no chunks if there is none."""
        return self._chunks(False, torch.arange(0 if self.test_y is None else len(self.test_y)))

    def own(self, worker: int) -> Iterator[Chunk]:
        """All training samples of the ``worker``-th local worker in chunks; not augmented."""
        return self._chunks(True, self.context.own[worker])

    def fresh(self, step: int, size: int) -> Chunk:
        """Inputs [W, size, ...] and targets [W, size], drawn with replacement from each worker's samples; not
        augmented."""
        context = self.context
        rows = with_replacement(context.own, context.worker_ids, size, context.seed, step)
        x, y = (torch.cat(each) for each in zip(*self._chunks(True, rows.flatten()), strict=True))
        return x.view(*rows.shape, *x.shape[1:]), y.view(rows.shape)

    @abstractmethod
    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Chunk]:
        """The samples ``rows`` of the training set or the test set in chunks."""

    def _split(self, rows: Tensor, one: torch.Size | tuple[int, ...]) -> Iterable[Tensor]:
        """Splits ``rows`` into chunks, for inputs of shape ``one`` each."""
        each = max(1, torch.Size(one).numel() * self.context.dtype.itemsize)
        most = CHUNK if len(one) > 1 else VECTORS
        return torch.split(rows, max(1, min(most, CHUNK_BYTES // each))) if len(rows) else ()

    def _normalise(self, x: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> floats, by mean and std; floats are only converted to the dtype."""
        if x.dtype != torch.uint8:
            return x.to(self.context.dtype)
        assert self.scale is not None
        assert self.shift is not None
        return x.to(self.context.dtype).mul_(self.scale.view(-1, 1, 1)).add_(self.shift.view(-1, 1, 1))
