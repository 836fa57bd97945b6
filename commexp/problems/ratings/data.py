"""Pairs of users and items that have ratings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Ratings:
    """m pairs of a user and an item; Data.train_y and test_y hold the ratings.

    ``users``, ``items``: int64 [m], on the CPU, below ``n_users`` and ``n_items``, which include users and items of the
    test set.
    """

    users: Tensor
    items: Tensor
    n_users: int
    n_items: int
    ndim = 1

    @property
    def shape(self) -> torch.Size:
        return self.users.shape

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, indices: Tensor) -> Ratings:
        """``indices``: [k], in any order and with repetitions."""
        return Ratings(self.users[indices], self.items[indices], self.n_users, self.n_items)
