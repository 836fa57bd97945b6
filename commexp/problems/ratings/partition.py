"""Partitions of ratings: whole users, or blocks of users and items."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np

from commexp.problems.data import Data
from commexp.problems.datasets.partition import Partition, Shares, balanced
from commexp.problems.ratings.data import Ratings


@dataclass
class ByUser(Partition):
    """Assigns whole users: in descending order of their ratings, each to the worker with the fewest ratings so far."""

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        users = _ratings(data, "by_user").users.numpy()
        counts = np.bincount(users)
        if workers > np.count_nonzero(counts):
            some = f"the {np.count_nonzero(counts)} users with ratings"
            raise ValueError(f"workers={workers}: more workers than {some}; give fewer")
        owner = balanced(counts, workers, rng)[users]
        return [np.flatnonzero(owner == n) for n in range(workers)]


@dataclass
class Blocks(Partition):
    """A grid: ``users`` groups of users and N / ``users`` groups of items, with balanced numbers of ratings. Each
    worker gets the ratings of one group of users for one group of items. Null: the largest divisor of N up to sqrt(N).
    Source: the blocks of Gemulla et al., KDD 2011, section 4. Raises ValueError if ``users`` does not divide N.
    """

    users: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        if self.users is not None and self.users < 1:
            raise ValueError(f"users={self.users}: must not be less than 1; give a number of groups, or null")

    def shares(self, data: Data, workers: int, rng: np.random.Generator) -> Shares:
        ratings = _ratings(data, "blocks")
        groups = self.users or max(d for d in range(1, math.isqrt(workers) + 1) if workers % d == 0)
        if workers % groups:
            raise ValueError(f"partition.users={groups}: does not divide workers={workers}; give a divisor, or null")
        u, i = ratings.users.numpy(), ratings.items.numpy()
        row = balanced(np.bincount(u), groups, rng)[u]
        column = balanced(np.bincount(i), workers // groups, rng)[i]
        owner = row * (workers // groups) + column
        return [np.flatnonzero(owner == n) for n in range(workers)]


def _ratings(data: Data, name: str) -> Ratings:
    if not isinstance(data.train_x, Ratings):
        raise ValueError(f"partition={name}: the data are no ratings; give partition=iid or natural")
    return data.train_x
