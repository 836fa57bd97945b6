"""The base of methods that take gradient steps: torch's optimisers on stacked vectors, learning-rate schedules,
sharpness-aware gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from commexp.algorithms.base import Algorithm
from commexp.state import Stateful

if TYPE_CHECKING:
    from commexp.problems.base import Ready

OPTIMIZERS = ("sgd", "adamw")


class Optimizer(Stateful):
    """SGD with momentum or AdamW acting in place on x, [J] or [W, J].

        sgd     u <- momentum u + g + weight_decay x;   x <- x - lr u     (nesterov: x <- x - lr (g' + momentum u))
        adamw   x <- (1 - lr weight_decay) x - lr mhat / (sqrt(vhat) + 1e-8)

    It calls the functional forms of torch.optim, because the classes import torch's compiler, which takes more than a
    second. ``buffers``: the optimiser's state by name, each of the shape of x; empty before the first step.
    """

    state = "**buffers"

    def __init__(
        self, kind: str, momentum: float, weight_decay: float, nesterov: bool, betas: tuple[float, float]
    ) -> None:
        self.kind, self.momentum, self.weight_decay, self.nesterov, self.betas = (
            kind, momentum, weight_decay, nesterov, betas,
        )  # fmt: skip
        self.buffers: dict[str, Tensor] = {}

    def step(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        """Update number ``step`` = 0, 1, ... with learning rate ``lr``; AdamW uses the number for its bias
        correction."""
        if self.kind == "sgd":
            self._sgd(x, gradient, lr)
        else:
            self._adamw(x, gradient, lr, step)

    def _sgd(self, x: Tensor, gradient: Tensor, lr: float) -> None:
        kept = [self.buffers.get("velocity")]
        sgd(
            [x],
            [gradient],
            kept,
            foreach=False,
            lr=lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            dampening=0.0,
            maximize=False,
        )
        if kept[0] is not None:
            self.buffers["velocity"] = kept[0]

    def _adamw(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        if not self.buffers:
            self.buffers = {"mean": torch.zeros_like(x), "square": torch.zeros_like(x)}
        adamw(
            [x],
            [gradient],
            [self.buffers["mean"]],
            [self.buffers["square"]],
            [],
            [torch.tensor(float(step))],  # adamw increments it
            foreach=False,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )


SCHEDULES = ("constant", "step", "cosine")


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
        if self.kind not in SCHEDULES:
            raise ValueError(f"schedule.kind={self.kind}: unknown; give one of {', '.join(SCHEDULES)}")
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
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer}: unknown; give {' or '.join(OPTIMIZERS)}")
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
