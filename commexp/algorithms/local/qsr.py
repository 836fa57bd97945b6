"""Local SGD with the quadratic synchronisation rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from commexp.algorithms.local.localsgd import LocalSGD


@dataclass
class QSR(LocalSGD):
    """Local SGD whose rounds get longer as the learning rate decays. With lr_t the rate at the round's first step,

        H = max(tau, floor((growth / lr_t)^2))

    is the number of its local steps; H = ``tau`` during the schedule's warm-up. The last round ends with the run.
    ``growth``: the rule's coefficient; rounds begin to grow when the learning rate falls below about this value.

    Source: Gu et al., arXiv 2310.14423, section 2.
    """

    growth: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.growth > 0:
            raise ValueError(
                f"growth={self.growth}: must be positive; give a value near the learning rate, such as 0.1"
            )

    def periods(self, steps: int) -> list[int]:
        periods: list[int] = []
        done = 0
        while done < steps:
            periods.append(min(self._length(done, steps), steps - done))
            done += periods[-1]
        return periods

    def _length(self, done: int, steps: int) -> int:
        rate = self.lr * self.schedule.factor(done, steps)
        if done < self.schedule.warmup:
            return self.tau
        if rate < self.growth / math.sqrt(steps):
            return steps
        return max(self.tau, math.floor((self.growth / rate) ** 2))
