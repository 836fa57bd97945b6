"""Batches of photos, prefetched by the processes that decode them."""

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

PIECE = 16  # photos per transfer from a loader process: all transfers must fit into a small /dev/shm

Key = tuple[int, int | None]  # a sample's index, and the seed of its augmentation


class Prefetcher:
    """Batches i = 0, 1, ... of photos; the next batches are decoded while one is in use.

    ``keys``: returns the keys of batch i. It must not hold a reference to this object, because the deletion of the
    object ends its processes. ``end``: the number of batches; None means endless. A request for any other batch than
    the next one restarts the prefetching there.
    """

    def __init__(
        self, photos: Photos, keys: Callable[[int], list[Key]], device: torch.device, end: int | None = None
    ) -> None:
        self.photos, self.keys, self.device, self.end = photos, keys, device, end
        self._next: int | None = None
        # torch ends the processes at once when their iterator is deleted, but waits 5 s for each if the garbage
        # collector deletes it as part of a cycle; so a list outside of any cycle holds it, cleared with this object
        self._arriving: list[Iterator[Tensor | str]] = []
        weakref.finalize(self, self._arriving.clear)
        _all.add(self)

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        """uint8 [k, 3, S, S] and the photos' indices [k], on the CPU. Raises ValueError for a damaged file."""
        if i != self._next:
            self._begin(i)
        self._next = None  # stays None if this batch fails
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
        self._ordered: deque[list[int]] = deque()  # the indices of prefetched batches
        loaders = min(self.photos.loaders, _cores())  # torch warns if there are more than cores
        loader: DataLoader[Tensor | str] = DataLoader(
            _Reader(self.photos),
            batch_sampler=_pieces(self.keys, start, self.end, self._ordered),
            num_workers=loaders,
            collate_fn=_stack,
            worker_init_fn=_begin_loader,
            generator=torch.Generator(),  # otherwise torch draws from the global one
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
    """Decodes the photo of a key in a loader process. It returns the text of an error instead of raising it, because
    torch would add that process's traceback, in a reference cycle that keeps the processes alive."""

    def __init__(self, photos: Photos) -> None:
        self.photos = photos

    def __getitem__(self, key: Key) -> Tensor | str:
        try:
            return self.photos.read(*key)
        except ValueError as error:
            return str(error)


def _stack(items: list[Tensor | str]) -> Tensor | str:
    """The photos as one tensor, or the first error."""
    failure = next((item for item in items if isinstance(item, str)), None)
    return torch.stack([item for item in items if isinstance(item, Tensor)]) if failure is None else failure


def _begin_loader(number: int) -> None:
    """Loader processes ignore Ctrl-C, which the main process handles, and end on SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
