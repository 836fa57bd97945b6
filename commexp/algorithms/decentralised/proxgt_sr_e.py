"""ProxGT-SR-E: proximal gradient tracking with recursive and full gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from torch import Tensor

from commexp.algorithms.decentralised.recursive_tracking import RecursiveTracking


@dataclass
class ProxGTSRE(RecursiveTracking):
    """The large batch in every ``q``-th round holds all m samples of a worker. q = null gives the paper's sqrt(N m),
    for which batches of b = max(1, sqrt(m / N)) samples suffice in between. For the rest see RecursiveTracking. Source:
    Xin, Das, Khan and Kar, arXiv 2110.01594, algorithm 4. Raises ValueError if q is below 1.
    """

    q: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.q is not None and self.q < 1:
            raise ValueError(f"q={self.q}: must not be less than 1; give rounds, or null for sqrt(N m)")

    @property
    def period(self) -> int:
        return self.q or max(1, round(math.sqrt(self.context.problem.samples)))

    def large_size(self) -> float:
        return self.context.problem.samples / self.context.comm.size

    def large(self, t: int) -> Tensor:
        return self.context.problem.local_gradient(self.x)[1].clone()
