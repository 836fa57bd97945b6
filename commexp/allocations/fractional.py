"""Fractional repetition: groups of workers that hold the same subsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Replicated


@dataclass
class FractionalRepetition(Replicated):
    """N/d groups of ``d`` workers; every worker of group g holds the subsets g d, ..., g d + d - 1. M = N, a multiple
    of d. Source: Tandon, Lei, Dimakis and Karampatziakis, Gradient Coding, ICML 2017 (arXiv 1612.03301)."""

    def assign(self, workers: int, seed: int) -> np.ndarray:
        self.refuse_too_few(workers)
        self.refuse_other_subsets(workers, "fractional repetition")
        if workers % self.d:
            below = workers // self.d * self.d
            raise ValueError(
                f"workers={workers}: not a multiple of d={self.d}, the size of a group; give {below} or "
                f"{below + self.d}"
            )
        group = np.arange(workers) // self.d
        held: np.ndarray = group[:, None] == group
        return held

    def code(self, workers: int, seed: int) -> np.ndarray:
        """Zeros and ones (algorithm 1); tolerates more stragglers as long as one worker of each group answers."""
        return self.assign(workers, seed).astype(np.float64)
