"""DiLoCo: an outer optimiser on the average change of the workers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.gradient.optimizers import Optimizer
from commexp.algorithms.local.base import LocalMethod


@dataclass
class DiLoCo(LocalMethod):
    """After ``tau`` local steps (AdamW, as published) from the shared x,

        d <- x - x_A                                              the outer gradient
        u <- outer_momentum u + d
        x <- x - outer_lr (d + outer_momentum u)                  Nesterov; every worker continues from x

    The model that is evaluated is x; the diagnostics are relative to x_A. With ``outer_lr=1`` and
    ``outer_momentum=0`` it is local SGD.

    Source: Douillard et al., arXiv 2311.08105, algorithm 1.
    """

    state = "outer"
    optimizer: str = "adamw"
    outer_lr: float = 0.7
    outer_momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr={self.outer_lr}: must be positive; the paper uses 0.7")
        if not 0 <= self.outer_momentum < 1:
            raise ValueError(f"outer_momentum={self.outer_momentum}: must lie in [0, 1); the paper uses 0.9")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.outer = Optimizer("sgd", self.outer_momentum, 0.0, self.outer_momentum > 0, (0.0, 0.0))

    def exchange(self, t: int) -> None:
        self.average, x = self.averaged(), self.pulled_average.clone()
        self.outer.step(x, x - self.average, self.outer_lr, t)
        self.go_on_from(x)

    def model(self) -> Tensor:
        return self.pulled_average
