"""Local SGD with the quadratic synchronisation rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from commexp.algorithms.local.localsgd import LocalSGD


@dataclass
class QSR(LocalSGD):
    """Local SGD whose rounds grow as the learning rate falls: with lr_t the rate at the round's first step,

        H = max(tau, floor((growth / lr_t)^2))

    local steps; H = ``tau`` during the schedule's warm-up; the last round ends with the run.
    ``growth``: the rule's coefficient, of the size of the learning rate at which rounds begin to grow.

    Source: Gu et al., arXiv 2310.14423, section 2.
    """

    growth: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.growth > 0:
            raise ValueError(f"growth={self.growth}: must be positive; give about the learning rate, such as 0.1")

    def lengths(self, steps: int) -> list[int]:
        lengths: list[int] = []
        done = 0
        while done < steps:
            lengths.append(min(self._length(done, steps), steps - done))
            done += lengths[-1]
        return lengths

    def _length(self, done: int, steps: int) -> int:
        rate = self.lr * self.schedule.factor(done, steps)
        if done < self.schedule.warmup:
            return self.tau
        if rate < self.growth / math.sqrt(steps):
            return steps
        return max(self.tau, math.floor((self.growth / rate) ** 2))
