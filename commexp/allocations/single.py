"""No redundancy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Allocation


@dataclass
class Single(Allocation):
    """d = 1: worker k mod N holds subset k. Two subsets share 0 workers or 1, whereas balance would require 1/N."""

    def assign(self, workers: int, seed: int) -> np.ndarray:
        return np.asarray(np.arange(workers)[:, None] == np.arange(self.count(workers)) % workers)
