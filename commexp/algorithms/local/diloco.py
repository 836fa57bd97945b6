"""DiLoCo: an outer optimiser on what the workers have moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.gradient.optimizer import Optimizer
from commexp.algorithms.local.base import LocalMethod
from commexp.state import under_prefix, with_prefix


@dataclass
class DiLoCo(LocalMethod):
    """After ``tau`` local steps (AdamW, as published) from the shared x,

        d <- x - x_A                                              the outer gradient
        u <- outer_momentum u + d
        x <- x - outer_lr (d + outer_momentum u)                  Nesterov; every worker goes on from there

    x is the model that is evaluated; the diagnostics are taken from x_A. With ``outer_lr=1`` and
    ``outer_momentum=0`` it is local SGD.

    Source: Douillard et al., arXiv 2311.08105, algorithm 1.
    """

    outer_lr: float = 0.7
    outer_momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr={self.outer_lr}: must be positive; 0.7 is published")
        if not 0 <= self.outer_momentum < 1:
            raise ValueError(f"outer_momentum={self.outer_momentum}: must lie in [0, 1); 0.9 is published")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.outer = Optimizer("sgd", self.outer_momentum, 0.0, self.outer_momentum > 0, (0.0, 0.0))

    def exchange(self, t: int) -> None:
        self.average, x = self.averaged(), self.pulled_average.clone()
        self.outer.step(x, x - self.average, self.outer_lr, t)
        self.go_on_from(x)

    def model(self) -> Tensor:
        return self.pulled_average

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), **with_prefix("outer", self.outer.state_dict())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.outer.load_state_dict(under_prefix("outer", state))
