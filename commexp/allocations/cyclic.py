"""Neighbouring subsets with neighbouring workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Replicated


@dataclass
class Cyclic(Replicated):
    """Subset k with workers b, b+1, ..., b+d-1 mod N from b = floor(k N/M) on: b = k for M = N. The workers' loads
    differ by at most one subset."""

    def assign(self, workers: int, seed: int) -> np.ndarray:
        self.refuse_too_few(workers)
        M = self.count(workers)
        first = np.arange(M) * workers // M
        held: np.ndarray = (np.arange(workers)[:, None] - first) % workers < self.d
        return held
