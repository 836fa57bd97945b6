"""Partitions of the samples over workers. Every sample belongs to exactly one worker; every worker has at least one."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from commexp.problems.data import Data
from commexp.seeding import numpy_generator

Shares = list[np.ndarray]


class Partition(ABC):
    """A dataclass; ``split`` returns the sample indices of each worker."""

    def split(self, data: Data, workers: int, seed: int) -> list[Tensor]:
        """Raises ValueError if there are more workers than samples, or if the data lack, for example, classes."""
        m = len(data.train_x)
        if workers > m:
            raise ValueError(f"workers={workers}: more workers than the {m} training samples; give at most {m}")
        shards = self.shares(data, workers, numpy_generator(seed, "partition"))
        return [torch.from_numpy(np.sort(p)).long() for p in _no_empty(shards)]

    @abstractmethod
    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        """Sample indices of each worker; a worker may still be empty."""


@dataclass
class Iid(Partition):
    """Shuffles the samples and distributes them evenly."""

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        return np.array_split(rng.permutation(len(data.train_x)), workers)


@dataclass
class NaturalPartition(Partition):
    """The split that the dataset itself defines; contiguous equal blocks if it defines none."""

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        if data.shards is not None:
            return [p.numpy() for p in data.shards]
        return np.array_split(np.arange(len(data.train_x)), workers)


@dataclass
class ByClass(Partition):
    """Sorts the samples by label, cuts them into workers x ``shards`` pieces, and assigns the pieces at random: a
    worker has about ``shards`` classes. Source: McMahan et al., arXiv 1602.05629, section 3.

    With ``classes`` = c, instead, every worker has c classes, drawn at random, and the workers of a class have equal
    parts of its samples. Source: Li et al., arXiv 2102.02079, quantity-based label imbalance; that all classes go to
    equally many workers, give or take one, is ours.
    """

    shards: int = 2
    classes: Optional[int] = field(default=None, metadata={"added": True})  # noqa: UP045  (for OmegaConf)

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ValueError(f"shards={self.shards}: must not be less than 1; 2 is usual")
        if self.classes is not None and self.classes < 1:
            raise ValueError(f"classes={self.classes}: must not be less than 1; give classes of a worker, or null")

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        labels = _labels(data, "by_class")
        if self.classes is not None:
            return self._dealt(labels, self.classes, workers, rng)
        if workers * self.shards > len(labels):
            most = len(labels) // workers
            raise ValueError(f"partition.shards={self.shards}: more pieces than samples; give at most {most}")
        shuffled = rng.permutation(len(labels))
        pieces = np.array_split(shuffled[np.argsort(labels[shuffled], kind="stable")], workers * self.shards)
        dealt = rng.permutation(len(pieces)).reshape(workers, self.shards)
        return [np.concatenate([pieces[i] for i in mine]) for mine in dealt]

    @staticmethod
    def _dealt(labels: np.ndarray, each: int, workers: int, rng: np.random.Generator) -> Shares:
        """``each`` classes for each worker."""
        present = np.unique(labels)
        least = -(-len(present) // workers)
        if not least <= each <= len(present):
            raise ValueError(
                f"partition.classes={each}: {workers} workers are to have all of {len(present)} classes; give {least} "
                f"to {len(present)}"
            )
        owners: list[list[int]] = [[] for _ in present]
        for n in rng.permutation(workers):
            for c in np.lexsort(np.stack([rng.random(len(present)), [len(some) for some in owners]]))[:each]:
                owners[c].append(int(n))
        mine: list[list[np.ndarray]] = [[] for _ in range(workers)]
        for label, some in zip(present, owners, strict=True):
            rows = rng.permutation(np.flatnonzero(labels == label))
            for n, piece in zip(some, np.array_split(rows, len(some)), strict=True):
                mine[n].append(piece)
        return [np.concatenate(pieces) for pieces in mine]


@dataclass
class Dirichlet(Partition):
    """Splits each class over the workers in proportions drawn from Dirichlet(``alpha``): with a small alpha a worker
    has few classes. Source: Hsu, Qi and Brown, arXiv 1909.06335, section 3.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha={self.alpha}: must be positive; 0.1 is very uneven, 100 nearly even")

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        labels = _labels(data, "dirichlet")
        mine: list[list[np.ndarray]] = [[] for _ in range(workers)]
        for c in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == c))
            ends = np.round(np.cumsum(rng.dirichlet(np.full(workers, self.alpha))) * len(rows)).astype(int)
            for worker, piece in zip(mine, np.split(rows, ends[:-1]), strict=True):
                worker.append(piece)
        return [np.concatenate(pieces) for pieces in mine]


@dataclass
class BySource(Partition):
    """Assigns whole sources, such as files, speakers or writers: in descending order of their samples, each to the
    worker with the fewest samples so far. Raises ValueError for data without sources, or with fewer sources than
    workers.
    """

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        if data.source is None:
            raise ValueError(
                "partition=by_source: the data have no sources; give partition=iid or natural, or data that have some: "
                "texts, folders of images by writer, your own with source="
            )
        names, source = np.unique(data.source.numpy(), return_inverse=True)
        if workers > len(names):
            wrong = f"more workers than the {len(names)} sources"
            raise ValueError(f"workers={workers}: {wrong}; give at most {len(names)}, or partition=natural")
        owner = balanced(np.bincount(source), workers, rng)[source]
        return [np.flatnonzero(owner == n) for n in range(workers)]


@dataclass
class RandomShares(Partition):
    """Shards of random size, the largest ``ratio`` times the smallest: sizes are proportional to ratio^v, with v drawn
    uniformly and rescaled to [0, 1]. Samples are assigned at random.
    """

    ratio: float = 5.0

    def __post_init__(self) -> None:
        if not self.ratio >= 1:
            raise ValueError(f"ratio={self.ratio}: less than 1; give the largest share over the smallest, such as 5")

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        v = rng.random(workers)
        size = self.ratio ** ((v - v.min()) / max(float(np.ptp(v)), 1e-12))
        ends = np.round(np.cumsum(size / size.sum()) * len(data.train_x)).astype(int)
        return np.split(rng.permutation(len(data.train_x)), ends[:-1])


def balanced(counts: np.ndarray, groups: int, rng: np.random.Generator) -> np.ndarray:
    """A group for each source, user or item, given their numbers of samples: in descending order, ties in random order,
    each goes to the group with the fewest samples so far."""
    present = rng.permutation(np.flatnonzero(counts))
    group = np.zeros(len(counts), dtype=np.int64)
    loads = [(0, n) for n in range(groups)]
    for k in present[np.argsort(-counts[present], kind="stable")].tolist():
        load, n = loads[0]
        group[k] = n
        heapq.heapreplace(loads, (load + int(counts[k]), n))
    return group


def _labels(data: Data, name: str) -> np.ndarray:
    if data.classes is None:
        raise ValueError(f"partition={name}: the data have no classes; give partition=iid or natural")
    return data.train_y.numpy()


def _no_empty(shards: Shares) -> Shares:
    """Gives each empty worker one sample of the largest shard."""
    shards = list(shards)
    for i, part in enumerate(shards):
        if len(part) == 0:
            giver = max(range(len(shards)), key=lambda j: len(shards[j]))
            shards[i], shards[giver] = shards[giver][-1:], shards[giver][:-1]
    return shards
