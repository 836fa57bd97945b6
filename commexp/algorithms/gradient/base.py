"""The base of methods that take gradient steps: optimiser, learning rate, sharpness-aware gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commexp.algorithms.base import Algorithm
from commexp.algorithms.gradient.optimizer import KINDS, Optimizer
from commexp.algorithms.gradient.schedule import Schedule

if TYPE_CHECKING:
    from commexp.problems.base import Ready


@dataclass
class GradientMethod(Algorithm):
    """``optimizer``: sgd or adamw, see Optimizer. The learning rate at local step s is ``lr`` times the schedule's
    factor.

    ``sam``: rho of sharpness-aware minimisation, 0 for none. Worker n computes its gradient at
    x_n + rho g_n / ||g_n||, where g_n is its gradient at x_n on the same batch: twice the computation, no more bytes.
    Source: Foret et al., arXiv 2010.01412, equation 2, with an ascent step per worker (m-sharpness, section 4.1).
    Raises ValueError for a hyper-parameter that is out of range.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    optimizer: str = "sgd"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    sam: float = 0.0
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be positive; give a learning rate such as 0.1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: must lie in [0, 1); 0.9 is usual")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay}: must not be negative; 5e-4 is usual")
        if self.optimizer not in KINDS:
            raise ValueError(f"optimizer={self.optimizer}: unknown; give {' or '.join(KINDS)}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True: needs momentum; give momentum=0.9")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(f"momentum={self.momentum}: AdamW has its own; give momentum=0 and betas")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas={self.betas}: out of range; give two numbers in [0, 1) such as [0.9, 0.999]")
        if not self.sam >= 0:
            raise ValueError(f"sam={self.sam}: must not be negative; 0.05 is usual, 0 is none")
        if self.sam:
            self.gradients = 2

    def make_optimizer(self) -> Optimizer:
        first, second = self.betas
        return Optimizer(self.optimizer, self.momentum, self.weight_decay, self.nesterov, (first, second))

    def rate(self, step: int) -> float:
        """The learning rate at local step ``step``."""
        return self.lr * self.schedule.factor(step, self.context.steps)

    def gradient(self, x: Tensor, step: int, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        """x [W, J] -> losses [W], gradients [W, J] on the batches of local step ``step``."""
        problem = self.context.problem
        batch = problem.batch(step)
        if self.sam:
            _, ascent = problem.loss_and_grad(x, batch)
            x = x + ascent * (self.sam / row_norms(ascent).clamp(min=torch.finfo(x.dtype).tiny))[:, None]
        return problem.loss_and_grad(x, batch, ready)


def row_norms(x: Tensor) -> Tensor:
    """[W, J] -> Euclidean norms [W]. Computed row by row, so that the bits do not depend on W."""
    return torch.stack([torch.linalg.vector_norm(row) for row in x])
