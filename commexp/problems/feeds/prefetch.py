"""Batches of photos on their way from the processes that decode them."""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Indexed

from commexp.problems.datasets.photos import Photos

PIECE = 16  # photos that a loader process hands over at once: what is in flight must fit into a small /dev/shm

Key = tuple[int, int | None]  # a sample's index, and the seed of its augmentation


class Prefetcher:
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
        _all.add(self)

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


_all: weakref.WeakSet[Prefetcher] = weakref.WeakSet()


@atexit.register  # before multiprocessing's own, registered earlier, kills the processes and torch complains
def _end() -> None:
    for batches in list(_all):
        batches._arriving.clear()


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
