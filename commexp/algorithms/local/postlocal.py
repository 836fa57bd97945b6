"""Post-local SGD: synchronous SGD first, then local SGD."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.algorithms.local.localsgd import LocalSGD


@dataclass
class PostLocalSGD(LocalSGD):
    """Local SGD that exchanges after every step during the first share ``switch`` of the run, and then after every
    ``tau`` steps. Each worker keeps its own momentum, whose average equals the momentum of synchronous SGD.

    Source: Lin et al., arXiv 1808.07217, section 3.
    """

    switch: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.switch <= 1:
            raise ValueError(f"switch={self.switch}: out of range; give a share of the run in [0, 1]")

    def periods(self, steps: int) -> list[int]:
        first = round(self.switch * steps)
        return [1] * first + super().periods(steps - first)
