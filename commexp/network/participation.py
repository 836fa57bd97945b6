"""Which workers take part in which round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.seeding import numpy_generator


@dataclass(frozen=True)
class Participation:
    """In every round exactly max(1, round(``share`` N)) of N workers take part, each set of so many with the same
    probability: client sampling without replacement, McMahan et al., arXiv 1602.05629, algorithm 1. Who does is a
    function of the seed and the round alone, so that all processes agree. With ``share`` = 1 all do, in every round."""

    share: float = 1.0

    @property
    def of_all(self) -> bool:
        """Whether every worker takes part in every round."""
        return self.share == 1

    def count(self, workers: int) -> int:
        """How many of so many workers take part in a round."""
        return max(1, round(self.share * workers))

    def taking(self, number: int, workers: int, seed: int) -> np.ndarray:
        """Who takes part in round ``number`` = 1, 2, ...: bool [N]."""
        taking = np.ones(workers, dtype=bool)
        if not self.of_all:
            drawn = numpy_generator(seed, "participation", number).permutation(workers)
            taking[drawn[self.count(workers) :]] = False
        return taking
