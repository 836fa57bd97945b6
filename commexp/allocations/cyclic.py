"""Cyclic allocations: consecutive workers hold each subset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Replicated
from commexp.seeding import numpy_generator


@dataclass
class Cyclic(Replicated):
    """Workers b, b+1, ..., b+d-1 mod N hold subset k, where b = floor(k N/M), that is b = k for M = N. The workers'
    loads differ by at most one subset."""

    def assign(self, workers: int, seed: int) -> np.ndarray:
        self.refuse_too_few(workers)
        M = self.count(workers)
        first = np.arange(M) * workers // M
        held: np.ndarray = (np.arange(workers)[:, None] - first) % workers < self.d
        return held

    def code(self, workers: int, seed: int) -> np.ndarray:
        """Rows in the null space of H [d - 1, N], whose entries are normal, drawn with (seed, "code"), with rows that
        sum to zero; B[n, n] = 1 (algorithm 2). For M = N. The largest entry grows with N and d, to about 1e3 for N =
        100 and d = 5."""
        self.refuse_other_subsets(workers, "the cyclic code")
        B = self.assign(workers, seed).astype(np.float64)
        if self.d == 1:
            return B
        H = numpy_generator(seed, "code").standard_normal((self.d - 1, workers))
        H[:, -1] = -H[:, :-1].sum(axis=1)
        for n in range(workers):
            others = (n - np.arange(1, self.d)) % workers
            B[n, others] = np.linalg.solve(H[:, others], -H[:, n])
        return B
