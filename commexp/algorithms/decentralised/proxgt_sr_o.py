"""ProxGT-SR-O: proximal gradient tracking with recursive gradients and fresh large batches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.decentralised.recursive_tracking import RecursiveTracking


@dataclass
class ProxGTSRO(RecursiveTracking):
    """The large batch in every ``q``-th round holds ``large_batch`` = B fresh samples. For the rest see
    RecursiveTracking. Source: Xin, Das, Khan and Kar, arXiv 2110.01594, algorithm 3. Raises ValueError if q or
    large_batch is below 1.
    """

    q: int = 32
    large_batch: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("q", "large_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must not be less than 1; give rounds, or samples")

    @property
    def period(self) -> int:
        return self.q

    def large_size(self) -> float:
        return self.context.problem.fresh_samples(self.large_batch)

    def large(self, t: int) -> Tensor:
        return self.at(self.x, self.context.problem.fresh(t, self.large_batch))
