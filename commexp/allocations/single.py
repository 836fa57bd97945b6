"""No redundancy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Allocation


@dataclass
class Single(Allocation):
    """d = 1: subset k with worker k mod N. Two subsets overlap in 0 workers, or in 1, where balance would be 1/N."""

    def assign(self, workers: int, seed: int) -> np.ndarray:
        return np.asarray(np.arange(workers)[:, None] == np.arange(self.count(workers)) % workers)
