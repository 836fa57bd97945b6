"""Batches as a model takes them: picked, decoded, moved to the device, augmented, normalised."""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Indexed

from commexp.problems.augment import Augment
from commexp.problems.base import Setting
from commexp.problems.data import Data
from commexp.problems.datasets.photos import Photos
from commexp.problems.rows import SparseRows
from commexp.problems.sampler import Sampler, with_replacement
from commexp.seeding import derive, generator

CHUNK = 512  # samples that an evaluation takes at once, at most
VECTORS = 8192  # of feature vectors
CHUNK_BYTES = 2**26  # and bytes
DENSE_BYTES = 2**26  # sparse rows that take at most so many with their zeros are unpacked once for all
PIECE = 16  # photos that a loader process hands over at once: what is in flight must fit into a small /dev/shm

Chunk = tuple[Tensor, Tensor]
Key = tuple[int, int | None]  # a sample's index, and the seed of its augmentation


class Feed(ABC):
    """Samples of ``data`` for the workers of ``setting``; inputs have its dtype and lie, with targets, on its device.

    ``samples``: m, the training samples over all workers. What is drawn depends on the seed, the worker and the step
    alone: not on W or P, on what was asked for before, or on how many processes decode.
    """

    def __init__(self, data: Data, setting: Setting) -> None:
        if setting.batch_size is None:
            raise ValueError("batch_size=null: these data are fed in mini-batches; give a number such as 16")
        self.samples = len(data.train_x)
        self.setting, self.batch_size = setting, setting.batch_size
        self.sampler = Sampler(setting.own, setting.worker_ids, self.batch_size, setting.seed)
        self.train_y, self.test_y = data.train_y, data.test_y
        self.scale = self.shift = None
        if data.mean is not None and data.std is not None:  # (x / 255 - mean) / std = scale x + shift
            mean, std = (t.to(torch.float64) for t in (data.mean, data.std))
            place = {"device": setting.device, "dtype": setting.dtype}
            self.scale, self.shift = (1 / (255 * std)).to(**place), (-mean / std).to(**place)  # type: ignore[call-overload]

    @abstractmethod
    def batch(self, step: int) -> Chunk:
        """Inputs [W, b, ...] and targets [W, b] of local step 0, 1, ..., augmented."""

    @abstractmethod
    def common(self, step: int) -> Chunk:
        """Inputs [b, ...] and targets [b] drawn with replacement from all m training samples, the same whoever asks;
        not augmented."""

    def train(self, at_most: int | None) -> Iterator[Chunk]:
        """Inputs [c, ...], targets [c], ...: all training samples in order, or ``at_most`` of them, evenly spread and
        always the same; not augmented. c is at most CHUNK, and its inputs take at most about CHUNK_BYTES."""
        m = self.samples
        few = at_most is not None and at_most < m
        rows = torch.linspace(0, m - 1, at_most, dtype=torch.float64).long() if few else torch.arange(m)
        return self._chunks(True, rows)

    def test(self) -> Iterator[Chunk]:
        """The same for the whole test set; nothing where there is none."""
        return self._chunks(False, torch.arange(0 if self.test_y is None else len(self.test_y)))

    def own(self, worker: int) -> Iterator[Chunk]:
        """All training samples of the ``worker``-th worker here, chunk by chunk; not augmented."""
        return self._chunks(True, self.setting.own[worker])

    def fresh(self, step: int, size: int) -> Chunk:
        """Inputs [W, size, ...] and targets [W, size], drawn with replacement from each worker's samples; not
        augmented."""
        setting = self.setting
        rows = with_replacement(setting.own, setting.worker_ids, size, setting.seed, step)
        x, y = (torch.cat(each) for each in zip(*self._chunks(True, rows.flatten()), strict=True))
        return x.view(*rows.shape, *x.shape[1:]), y.view(rows.shape)

    @abstractmethod
    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Chunk]:
        """The samples ``rows`` of the training set or the test set, chunk by chunk."""

    def _split(self, rows: Tensor, one: torch.Size | tuple[int, ...]) -> Iterable[Tensor]:
        """``rows`` in chunks, for inputs of shape ``one`` each."""
        each = max(1, torch.Size(one).numel() * self.setting.dtype.itemsize)
        most = CHUNK if len(one) > 1 else VECTORS
        return torch.split(rows, max(1, min(most, CHUNK_BYTES // each))) if len(rows) else ()

    def _normalise(self, x: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> floats, by mean and std; floats pass."""
        if x.dtype != torch.uint8:
            return x.to(self.setting.dtype)
        assert self.scale is not None
        assert self.shift is not None
        return x.to(self.setting.dtype).mul_(self.scale.view(-1, 1, 1)).add_(self.shift.view(-1, 1, 1))


class InMemory(Feed):
    """All samples live on the device, images as uint8 where they come so; inputs may be feature vectors [d].

    Sparse rows of more than DENSE_BYTES stay on the CPU as they are: those of a batch or chunk are unpacked for it.
    """

    def __init__(self, data: Data, setting: Setting) -> None:
        super().__init__(data, setting)
        self.train_x, self.train_y = self._place(data.train_x), data.train_y.to(setting.device)
        self.test_x = None if data.test_x is None else self._place(data.test_x)
        self.test_y = None if data.test_y is None else data.test_y.to(setting.device)
        self.augment = None if data.augment == Augment() else data.augment

    def _place(self, x: Tensor | SparseRows) -> Tensor | SparseRows:
        dtype = self.setting.dtype
        if isinstance(x, SparseRows):
            if x.shape.numel() * dtype.itemsize > DENSE_BYTES:
                return x
            x = x.dense(dtype)
        return x.to(self.setting.device, x.dtype if x.dtype == torch.uint8 else dtype)

    def batch(self, step: int) -> Chunk:
        rows = self.sampler.batch(step)
        x, y = self._take(self.train_x, self.train_y, rows.flatten())
        if self.augment is not None:
            seed, (height, width) = self.setting.seed, x.shape[-2:]
            streams = [generator(seed, "augment", n, step) for n in self.setting.worker_ids]
            draws = torch.cat([self.augment.draw(g, self.batch_size, height, width) for g in streams])
            x = self.augment.apply(x, draws, self.shift)
        return x.view(*rows.shape, *x.shape[1:]), y.view(rows.shape)

    def common(self, step: int) -> Chunk:
        rows = common_rows(self.samples, self.batch_size, self.setting.seed, step)
        return self._take(self.train_x, self.train_y, rows)

    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Chunk]:
        x, y = (self.train_x, self.train_y) if train else (self.test_x, self.test_y)
        if x is None or y is None:
            return
        for chunk in self._split(rows, x.shape[1:]):
            yield self._take(x, y, chunk)

    def _take(self, x: Tensor | SparseRows, y: Tensor, rows: Tensor) -> Chunk:
        """The samples ``rows``, [k], which lie on the CPU."""
        device = self.setting.device
        here = rows.to(device)
        if isinstance(x, SparseRows):
            return x[rows].dense(self.setting.dtype).to(device), y[here]
        return self._normalise(x[here]), y[here]


class Streamed(Feed):
    """Photos, decoded ahead of time by ``Photos.loaders`` processes (0: by this one, when asked for)."""

    def __init__(self, data: Data, setting: Setting) -> None:
        super().__init__(data, setting)
        assert isinstance(data.train_x, Photos)
        self.train_x: Photos = data.train_x
        self.test_x: Photos | None = data.test_x
        own = partial(_own_keys, self.sampler, setting, self.train_x.augment)
        everyones = partial(_common_keys, self.samples, self.batch_size, setting.seed)
        self._own, self._common = (Line(self.train_x, keys, setting.device) for keys in (own, everyones))

    def batch(self, step: int) -> Chunk:
        x, y = self._chunk(self.train_x, *self._own(step))
        shape = len(self.setting.worker_ids), self.batch_size
        return x.view(*shape, *x.shape[1:]), y.view(*shape)

    def common(self, step: int) -> Chunk:
        return self._chunk(self.train_x, *self._common(step))

    def _chunks(self, train: bool, rows: Tensor) -> Iterator[Chunk]:
        photos = self.train_x if train else self.test_x
        if photos is None or not len(rows):
            return
        chunks = list(self._split(rows, photos.shape[1:]))
        line = Line(photos, lambda i: [(index, None) for index in chunks[i].tolist()], self.setting.device, len(chunks))
        for i in range(len(chunks)):
            yield self._chunk(photos, *line(i))

    def _chunk(self, photos: Photos, pixels: Tensor, rows: Tensor) -> Chunk:
        device = self.setting.device
        x = self._normalise(pixels.to(device, non_blocking=True))
        return x, photos.labels[rows].to(device)


def common_rows(samples: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The common batch of a step: indices [b] out of ``samples``."""
    return torch.randint(samples, (batch_size,), generator=generator(seed, "common", step))


def _common_keys(samples: int, batch_size: int, seed: int, step: int) -> list[Key]:
    return [(index, None) for index in common_rows(samples, batch_size, seed, step).tolist()]


def _own_keys(sampler: Sampler, setting: Setting, augment: bool, step: int) -> list[Key]:
    return [
        (index, derive(setting.seed, "augment", worker, step, position) if augment else None)
        for worker, rows in zip(setting.worker_ids, sampler.batch(step).tolist(), strict=True)
        for position, index in enumerate(rows)
    ]


class Line:
    """Batches i = 0, 1, ... of photos, the next ones on their way while one is used.

    ``keys``: what batch i consists of; it must not lead back to this object, whose end is that of its processes.
    ``end``: how many there are, None for no end. Asked for another batch than the next, it begins anew there.
    """

    def __init__(
        self, photos: Photos, keys: Callable[[int], list[Key]], device: torch.device, end: int | None = None
    ) -> None:
        self.photos, self.keys, self.device, self.end = photos, keys, device, end
        self._next: int | None = None
        # torch ends the processes at once when their iterator goes, but waits 5 s for each where the garbage collector
        # finds it in a cycle; so what keeps it is a list outside of every cycle, emptied when this object goes
        self._arriving: list[Iterator[Tensor | str]] = []
        weakref.finalize(self, self._arriving.clear)
        _lines.add(self)

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        """uint8 [k, 3, S, S] and the photos' indices [k], on the CPU. Raises ValueError for a damaged file."""
        if i != self._next:
            self._begin(i)
        self._next = None  # until all has gone well
        pieces = [self._piece()]
        rows = self._ordered.popleft()
        while sum(map(len, pieces)) < len(rows):
            pieces.append(self._piece())
        self._next = i + 1
        return torch.cat(pieces), torch.tensor(rows)

    def _piece(self) -> Tensor:
        piece = next(self._arriving[0])
        if isinstance(piece, str):
            raise ValueError(piece)
        return piece

    def _begin(self, start: int) -> None:
        self._arriving.clear()
        self._ordered: deque[list[int]] = deque()  # the indices of batches on their way
        loaders = min(self.photos.loaders, _cores())  # torch warns of more than there are cores
        loader: DataLoader[Tensor | str] = DataLoader(
            _Reader(self.photos),
            batch_sampler=_pieces(self.keys, start, self.end, self._ordered),
            num_workers=loaders,
            collate_fn=_stack,
            worker_init_fn=_begin_loader,
            generator=torch.Generator(),  # else the global one would be drawn from
            pin_memory=self.device.type == "cuda",
        )
        self._arriving.append(iter(loader))


_lines: weakref.WeakSet[Line] = weakref.WeakSet()


@atexit.register  # before multiprocessing's own, registered earlier, kills the processes and torch complains
def _end_lines() -> None:
    for line in list(_lines):
        line._arriving.clear()


def _pieces(
    keys: Callable[[int], list[Key]], start: int, end: int | None, ordered: deque[list[int]]
) -> Iterator[list[Key]]:
    for i in count(start) if end is None else range(start, end):
        batch = keys(i)
        ordered.append([index for index, _ in batch])
        for k in range(0, len(batch), PIECE):
            yield batch[k : k + PIECE]


class _Reader(Indexed[Tensor | str]):
    """What a loader process does with a key. A refusal is handed over in words: raised there, torch would wrap it in
    that process's traceback, in a cycle that keeps the processes."""

    def __init__(self, photos: Photos) -> None:
        self.photos = photos

    def __getitem__(self, key: Key) -> Tensor | str:
        try:
            return self.photos.read(*key)
        except ValueError as error:
            return str(error)


def _stack(items: list[Tensor | str]) -> Tensor | str:
    """The first refusal, if there is one."""
    refusal = next((item for item in items if isinstance(item, str)), None)
    return torch.stack([item for item in items if isinstance(item, Tensor)]) if refusal is None else refusal


def _begin_loader(number: int) -> None:
    """Ctrl-C is the main process's affair; being ended by it is not what its own handler is for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_feed(data: Data, setting: Setting) -> Feed:
    """InMemory for tensors and SparseRows, Streamed for Photos. Raises ValueError for full batches."""
    return Streamed(data, setting) if isinstance(data.train_x, Photos) else InMemory(data, setting)
