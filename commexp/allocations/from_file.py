"""Allocations from a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Allocation
from commexp.files import Listing

RIGHT = "N rows of M zeros and ones"


@dataclass
class AllocationFile(Listing, Allocation):
    """N rows of M zeros and ones separated by blanks or commas, a one where worker n holds subset k; # starts a
    comment. ``subsets``: null for as many as the file has. Raises ValueError if the file cannot be read or does not
    have the ``digest``.
    """

    def __post_init__(self) -> None:
        Allocation.__post_init__(self)
        self.content()

    def assign(self, workers: int, seed: int) -> np.ndarray:
        rows: list[np.ndarray] = []
        for number, words in self.lines():
            if not set(words) <= {"0", "1"}:
                raise self.bad(f"line {number} is {' '.join(words)[:40]!r}", RIGHT)
            if rows and len(words) != len(rows[0]):
                raise self.bad(f"line {number} has {len(words)} numbers, those before it {len(rows[0])}", RIGHT)
            rows.append(np.array([word == "1" for word in words]))
        if not rows:
            raise self.bad("empty", RIGHT)
        held = np.array(rows)
        N, M = held.shape
        if workers != N:
            raise ValueError(f"workers={workers}: the allocation in {self.path} has {N}; give workers={N}")
        if self.subsets not in (None, M):
            raise ValueError(f"subsets={self.subsets}: the allocation in {self.path} has {M}; give {M}, or null")
        lost = np.flatnonzero(~held.any(axis=0))
        if len(lost):
            raise self.bad(f"column {lost[0]} has no one: no worker holds that subset", "a one in every column")
        return held
