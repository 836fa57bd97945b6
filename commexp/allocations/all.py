"""Full redundancy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Allocation


@dataclass
class All(Allocation):
    """d = N: every worker holds every subset; exactly balanced."""

    def assign(self, workers: int, seed: int) -> np.ndarray:
        return np.ones((workers, self.count(workers)), dtype=bool)
