"""The order of samples, a function of (seed, worker, step) only, so that a checkpoint needs no position; the base of
all feeds; and the feed of data that fit into memory."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from commexp.problems.augment import Augment
from commexp.problems.base import ProblemContext, spread
from commexp.problems.data import Data
from commexp.problems.feeds.ahead import Ahead
from commexp.problems.sparse_rows import SparseRows
from commexp.problems.trees import Tree, joined, tree_map
from commexp.seeding import generator


class Sampler:
    """Batches of ``batch_size`` samples from each worker's shard, in a new random order in every epoch of that worker.

    A batch that reaches the end of an epoch continues into the next one, so all batches have the same size.
    """

    def __init__(self, shards: Sequence[Tensor], worker_ids: Sequence[int], batch_size: int, seed: int) -> None:
        self.shards, self.worker_ids, self.batch_size, self.seed = shards, worker_ids, batch_size, seed
        self._orders: dict[int, dict[int, Tensor]] = {}  # by the worker's number and the epoch

    def for_workers(self, rows: Sequence[int]) -> Sampler:
        """The sampler of these local workers."""
        some = copy.copy(self)
        some.shards, some.worker_ids = [self.shards[row] for row in rows], [self.worker_ids[row] for row in rows]
        return some

    def batch(self, step: int) -> Tensor:
        """Sample indices [W, b] of local step 0, 1, ..."""
        return self.batches(range(step, step + 1))[0]

    def batches(self, steps: range) -> Tensor:
        """Sample indices [s, W, b] of s steps, one after the other."""
        size = self.batch_size
        rows = [self._rows(w, size * steps.start, size * steps.stop) for w in range(len(self.shards))]
        return torch.stack([r.view(len(steps), size) for r in rows], dim=1)

    def _rows(self, w: int, start: int, end: int) -> Tensor:
        """Of all that a worker draws in the run, numbers ``start`` to ``end``."""
        size = len(self.shards[w])
        first, last = start // size, (end - 1) // size
        if first == last:
            return self._order(w, first)[start - first * size : end - first * size]
        stream = torch.cat([self._order(w, epoch) for epoch in range(first, last + 1)])
        return stream[start - first * size : end - first * size]

    def _order(self, w: int, epoch: int) -> Tensor:
        worker = self.worker_ids[w]
        kept = self._orders.setdefault(worker, {})
        if epoch not in kept:
            for old in [each for each in kept if each < epoch - 1]:
                del kept[old]
            g = generator(self.seed, "order", worker, epoch)
            kept[epoch] = self.shards[w][torch.randperm(len(self.shards[w]), generator=g)]
        return kept[epoch]


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


CHUNK = 512  # the largest number of samples in a chunk of an evaluation
VECTORS = 8192  # the same for feature vectors
CHUNK_BYTES = 2**26  # the largest size of a chunk


class Feed(ABC):
    """Samples of ``data`` for the workers of ``context``, with its dtype and on its device.

    ``samples``: m, the training samples of all workers together. Draws depend only on the seed, the worker and the
    step: not on W or P, on earlier calls, or on the number of decoding processes. ``ahead``: batches that are drawn
    several at a time, of a feed that implements ``batches``.
    """

    def __init__(self, data: Data, context: ProblemContext) -> None:
        if context.batch_size is None:
            raise ValueError("batch_size=null: these data are fed in mini-batches; give a number such as 16")
        self.samples = len(data.train_x)
        self.context, self.batch_size = context, context.batch_size
        self.sampler = Sampler(context.own, context.worker_ids, self.batch_size, context.seed)
        self.ahead = Ahead(self.batches)
        self.train_y, self.test_y = data.train_y, data.test_y
        self.test_samples = 0 if data.test_x is None else len(data.test_x)
        self.scale = self.shift = None
        if data.mean is not None and data.std is not None:  # (x / 255 - mean) / std = scale x + shift
            mean, std = (t.to(torch.float64) for t in (data.mean, data.std))
            place = {"device": context.device, "dtype": context.dtype}
            self.scale, self.shift = (1 / (255 * std)).to(**place), (-mean / std).to(**place)  # type: ignore[call-overload]

    def for_workers(self, rows: Sequence[int]) -> Feed:
        """A feed of the same samples for these local workers only."""
        some, everyone = copy.copy(self), self.context.worker_ids
        some.context = replace(self.context, worker_ids=[everyone[row] for row in rows])
        some.sampler = self.sampler.for_workers(rows)
        some.ahead = Ahead(some.batches, self.ahead.most * len(rows) // len(everyone))
        return some

    def batch(self, step: int) -> Tree:
        """The workers' samples of local step 0, 1, ..., [W, b, ...] each; of images inputs and targets, augmented."""
        return self.ahead.batch(step)

    def batches(self, steps: range) -> Tree:
        """The same of s steps, one after the other, [s, W, b, ...] each."""
        raise NotImplementedError(f"{type(self).__name__} draws a batch at a time")

    @abstractmethod
    def common(self, step: int) -> Tree:
        """The common batch, [b, ...], see common_rows; not augmented."""

    def train(self, at_most: int | None) -> Iterator[Tree]:
        """Chunks of c samples: all training samples in order, or a fixed choice of ``at_most`` of them, evenly spread;
        not augmented. c is at most CHUNK, and the inputs take at most about CHUNK_BYTES."""
        m = self.samples
        few = at_most is not None and at_most < m
        return self._chunks(True, spread(m, at_most) if few else torch.arange(m))  # type: ignore[arg-type]

    def chosen(self, rows: Tensor) -> Iterator[Tree]:
        """The training samples ``rows`` in chunks; not augmented."""
        return self._chunks(True, rows)

    def test(self) -> Iterator[Tree]:
        """The test set in chunks; no chunks if there is none."""
        return self._chunks(False, torch.arange(self.test_samples))

    def own(self, worker: int) -> Iterator[Tree]:
        """All training samples of the ``worker``-th local worker in chunks; not augmented."""
        return self._chunks(True, self.context.own[worker])

    def fresh(self, step: int, size: int) -> Tree:
        """The workers' samples [W, size, ...], drawn with replacement from their own; not augmented."""
        rows = self.fresh_rows(step, size)
        flat = joined(list(self._chunks(True, rows.flatten())))
        return tree_map(lambda t: t.view(*rows.shape, *t.shape[1:]), flat)

    def fresh_rows(self, step: int, size: int) -> Tensor:
        """The sample indices [W, size] of ``fresh``."""
        context = self.context
        return with_replacement(context.own, context.worker_ids, size, context.seed, step)

    def example(self) -> Tree:
        """Two training samples."""
        return tree_map(lambda t: t[:2], next(iter(self._chunks(True, torch.tensor([0, self.samples - 1])))))

    @abstractmethod
    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Tree]:
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

    def batches(self, steps: range) -> Tree:
        rows = self.sampler.batches(steps)
        x, y = self._take(self.train_x, self.train_y, rows.flatten())
        if self.augment is not None:
            seed, (height, width) = self.context.seed, x.shape[-2:]
            streams = [generator(seed, "augment", n, step) for step in steps for n in self.context.worker_ids]
            draws = torch.cat([self.augment.draw(g, self.batch_size, height, width) for g in streams])
            x = self.augment.apply(x, draws, self.shift)
        return x.view(*rows.shape, *x.shape[1:]), y.view(rows.shape)

    def common(self, step: int) -> Tree:
        rows = common_rows(self.context.shards, self.batch_size, self.context.seed, step)
        return self._take(self.train_x, self.train_y, rows)

    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Tree]:
        x, y = (self.train_x, self.train_y) if train else (self.test_x, self.test_y)
        if x is None or y is None:
            return
        for chunk in self._split(rows, x.shape[1:]):
            yield self._take(x, y, chunk)

    def _take(self, x: Tensor | SparseRows, y: Tensor, rows: Tensor) -> Tree:
        """The samples ``rows`` [k], a tensor on the CPU."""
        device = self.context.device
        here = rows.to(device)
        if isinstance(x, SparseRows):
            return x[rows].dense(self.context.dtype).to(device), y[here]
        return self._normalise(x[here]), y[here]
