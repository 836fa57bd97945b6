"""Learning-rate schedules as factors of the base rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

KINDS = ("constant", "step", "cosine")


@dataclass
class Schedule:
    """Factor of the learning rate at local step t of T, after a linear warm-up of ``warmup`` steps.

        warm-up     (t + 1) / warmup                                 for t < warmup
        constant    1
        step        gamma^(number of milestones m with t >= m T)
        cosine      (1 + cos(pi (t - warmup) / (T - warmup))) / 2

    ``kind``: constant, step or cosine. ``milestones``: fractions of T. Raises ValueError for a value out of range.
    """

    kind: str = "constant"
    warmup: int = 0
    milestones: list[float] = field(default_factory=lambda: [0.5, 0.75])
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"schedule.kind={self.kind}: unknown; give one of {', '.join(KINDS)}")
        if self.warmup < 0:
            raise ValueError(f"schedule.warmup={self.warmup}: must not be negative; give a number of local steps")
        if not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"schedule.milestones={self.milestones}: out of range; give shares of the run in (0, 1)")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"schedule.gamma={self.gamma}: out of range; give a factor in (0, 1]")

    def factor(self, t: int, rounds: int) -> float:
        if t < self.warmup:
            return (t + 1) / self.warmup
        if self.kind == "step":
            return self.gamma ** sum(t >= m * rounds for m in self.milestones)
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (t - self.warmup) / max(1, rounds - self.warmup)))
        return 1.0
