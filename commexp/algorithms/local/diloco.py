"""DiLoCo: an outer optimiser on the average change of the workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.gradient.optimizers import Optimizer
from commexp.algorithms.local.base import ADDED, LocalMethod

OUTER: tuple[str, ...] = ("nesterov", "heavy_ball", "adam")


@dataclass
class DiLoCo(LocalMethod):
    """After ``tau`` local steps (AdamW, as published) from the shared x, by the outer optimiser ``outer``,

        d <- x - x_A                                              the outer gradient: old minus new
        u <- outer_momentum u + d
        x <- x - outer_lr (d + outer_momentum u)                  nesterov; every worker continues from x
        x <- x - outer_lr u                                       heavy_ball
        x <- x - outer_lr dhat_1 / (sqrt(dhat_2) + 1e-8)          adam: of d's moments, with ``outer_betas``

    Each fragment has an outer optimiser of its own. The model that is evaluated is x; the diagnostics are relative to
    x_A. With ``outer_lr=1`` and ``outer_momentum=0`` it is local SGD.

    With ``fragments``, ``delay`` and ``mix`` (see LocalMethod) it is Streaming DiLoCo; with Muon as the local
    optimiser, MuLoCo; with chunked Top-k, error feedback and no outer momentum, SparseLoCo. Presets of these names set
    what their papers publish.

    Source: Douillard et al., arXiv 2311.08105, algorithm 1; Reddi et al., arXiv 2003.00295 (Adam outside);
    arXiv 2501.18512 (Streaming DiLoCo); arXiv 2505.23725 (MuLoCo); arXiv 2508.15706 (SparseLoCo).
    Raises ValueError for values out of range.
    """

    state = "outers"
    samples_workers = True
    outer_choices: ClassVar[tuple[str, ...]] = OUTER
    optimizer: str = "adamw"
    outer_lr: float = 0.7
    outer_momentum: float = 0.9
    outer: str = field(default="nesterov", metadata=ADDED)
    outer_betas: list[float] = field(default_factory=lambda: [0.9, 0.99], metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr={self.outer_lr}: must be positive; the paper uses 0.7")
        if not 0 <= self.outer_momentum < 1:
            raise ValueError(f"outer_momentum={self.outer_momentum}: must lie in [0, 1); the paper uses 0.9")
        if self.outer not in self.outer_choices:
            raise ValueError(f"outer={self.outer}: unknown; give one of {', '.join(self.outer_choices)}")
        if len(self.outer_betas) != 2 or not all(0 <= b < 1 for b in self.outer_betas):
            raise ValueError(f"outer_betas={self.outer_betas}: out of range; give two numbers in [0, 1)")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.outers = {str(i): self.make_outer() for i in range(self.fragments)}

    def make_outer(self) -> Optimizer:
        first, second = self.outer_betas
        nesterov = self.outer == "nesterov" and self.outer_momentum > 0
        kind = "adamw" if self.outer == "adam" else "sgd"
        return Optimizer(kind, self.outer_momentum, 0.0, nesterov, (first, second))

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        x = self.part(t).take(self.pulled_average).clone()
        self.outers[str(t % self.fragments)].step(x, x - average, self.outer_lr, t // self.fragments)
        self.continue_from(t, x)

    def model(self) -> Tensor:
        return self.pulled_average
