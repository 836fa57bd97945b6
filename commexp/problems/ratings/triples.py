"""Ratings with users, items and times: numbering, duplicates, and the held-out set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from commexp.problems.data import Data
from commexp.problems.ratings.data import Ratings
from commexp.seeding import numpy_generator

SPLITS = ("random", "time")


@dataclass
class Triples:
    """``users``, ``items``, ``times``: integers [m]. ``ratings``: floats [m]. Times are in any unit that
    increases with time. ``timed``: whether the data contain times."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    times: np.ndarray
    timed: bool = True

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def numbers(self) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
        """For users and for items: the rank of each id among the distinct ids, int64 [m], and their number."""
        import pandas as pd  # takes a third of a second

        (users, all_users), (items, all_items) = (pd.factorize(ids, sort=True) for ids in (self.users, self.items))
        return (users.astype(np.int64), len(all_users)), (items.astype(np.int64), len(all_items))

    def repeated(self) -> int | None:
        """The index of the first rating whose pair of user and item occurred before; None if there is none."""
        (users, _), (items, _) = self.numbers
        pairs = users * (int(items.max()) + 1) + items
        in_order = np.sort(pairs)
        if not (in_order[1:] == in_order[:-1]).any():
            return None
        first = np.unique(pairs, return_index=True)[1]
        return int(np.setdiff1d(np.arange(len(pairs)), first)[0])


def held_out(triples: Triples, share: float, split: str, seed: int, purpose: str = "split") -> np.ndarray:
    """Whether each rating belongs to the test set, bool [m]. ``random``: round(share m) ratings, drawn with the seed
    and for the ``purpose``.
    ``time``: the last floor(share m_u) of the m_u ratings of each user, so every user has training ratings."""
    m = len(triples)
    test = np.zeros(m, dtype=bool)
    if split == "random":
        test[numpy_generator(seed, purpose).permutation(m)[: round(share * m)]] = True
        return test
    order = np.lexsort((triples.items, triples.times, triples.users))
    starts = np.flatnonzero(np.diff(triples.users[order], prepend=np.nan))
    counts = np.diff(starts, append=m)
    place = np.arange(m) - np.repeat(starts, counts)  # the position of each rating among those of its user
    test[order] = place >= np.repeat(counts - np.floor(share * counts).astype(int), counts)
    return test


def divided(
    triples: Triples, share: float, split: str, seed: int, dtype: torch.dtype, validation: int | None = None
) -> Data:
    """Training and test data; users and items are numbered in ascending order of their ids. ``validation``: a number of
    training ratings, chosen by the same ``split`` (by time at most so many), that are not trained on and replace the
    test data. Raises ValueError if one of the sets is empty."""
    test = held_out(triples, share, split, seed)
    if test.all() or not test.any():
        raise ValueError(
            f"dataset.test={share}: one of the two sets of {len(triples)} ratings would be empty; give another share, "
            "or more ratings"
        )
    train = ~test
    if validation is not None:
        train, test = _with_validation(triples, train, validation, split, seed)
    (users, all_users), (items, all_items) = triples.numbers
    pairs = Ratings(torch.from_numpy(users), torch.from_numpy(items), all_users, all_items)
    ratings = torch.tensor(triples.ratings, dtype=dtype)
    rows = [torch.from_numpy(np.flatnonzero(side)) for side in (train, test)]
    return Data(pairs[rows[0]], ratings[rows[0]], pairs[rows[1]], ratings[rows[1]])


def _with_validation(
    triples: Triples, train: np.ndarray, n: int, split: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the ratings ``train``, bool [m], those that are trained on and those that are held out, bool [m] each."""
    rows = np.flatnonzero(train)
    some = Triples(triples.users[rows], triples.items[rows], triples.ratings[rows], triples.times[rows], triples.timed)
    chosen = held_out(some, min(1.0, n / len(rows)), split, seed, "validation")
    if chosen.all() or not chosen.any():
        raise ValueError(
            f"dataset.validation={n}: one of the two sets of {len(rows)} training ratings would be empty; give another "
            "number, or null for the test set"
        )
    test = np.zeros_like(train)
    test[rows[chosen]] = True
    return train & ~test, test
