"""Random allocations, drawn with (seed, "allocation")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.allocations.base import Replicated
from commexp.seeding import numpy_generator


@dataclass
class Random(Replicated):
    """Assigns each subset to ``d`` distinct workers, uniformly and independently of other subsets. A pair of subsets
    shares d^2/N workers on average, so balance holds in expectation. A worker may hold no subset."""

    def assign(self, workers: int, seed: int) -> np.ndarray:
        self.refuse_too_few(workers)
        order = numpy_generator(seed, "allocation").random((self.count(workers), workers)).argsort(axis=1)
        held = np.zeros((workers, len(order)), dtype=bool)
        held[order[:, : self.d], np.arange(len(order))[:, None]] = True
        return held
