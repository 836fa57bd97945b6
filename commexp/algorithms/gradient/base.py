"""The base of methods that take gradient steps: learning-rate schedules, sharpness-aware gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

import torch
from torch import Tensor

from commexp.algorithms.base import Algorithm
from commexp.algorithms.gradient.optimizers import DECAYED, NOT_HIDDEN, OPTIMIZERS, Optimizer

if TYPE_CHECKING:
    from commexp.problems.base import Ready

SCHEDULES = ("constant", "step", "cosine")


@dataclass
class Schedule:
    """Factor of the learning rate at local step t of T, after a linear warm-up of ``warmup`` steps.

        warm-up     (t + 1) / warmup                                 for t < warmup
        constant    1
        step        gamma^(number of milestones m with t >= m T)
        cosine      final + (1 - final) (1 + cos(pi (t - warmup) / (T - warmup))) / 2

    ``kind``: constant, step or cosine. ``warmup``: local steps. ``milestones``: fractions of T. ``gamma``: the factor
    at each milestone. ``final``: the factor at which cosine ends.
    Raises ValueError for a value out of range.
    """

    kind: str = "constant"
    warmup: int = 0
    milestones: list[float] = field(default_factory=lambda: [0.5, 0.75])
    gamma: float = 0.1
    final: float = field(default=0.0, metadata={"added": True})

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise ValueError(f"schedule.kind={self.kind}: unknown; give one of {', '.join(SCHEDULES)}")
        if self.warmup < 0:
            raise ValueError(f"schedule.warmup={self.warmup}: must not be negative; give a number of local steps")
        if not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"schedule.milestones={self.milestones}: out of range; give shares of the run in (0, 1)")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"schedule.gamma={self.gamma}: out of range; give a factor in (0, 1]")
        if not 0 <= self.final <= 1:
            raise ValueError(f"schedule.final={self.final}: out of range; give a share of lr in [0, 1] such as 0.1")

    def factor(self, t: int, rounds: int) -> float:
        if t < self.warmup:
            return (t + 1) / self.warmup
        if self.kind == "step":
            return self.gamma ** sum(t >= m * rounds for m in self.milestones)
        if self.kind == "cosine":
            wave = 0.5 * (1 + math.cos(math.pi * (t - self.warmup) / max(1, rounds - self.warmup)))
            return self.final + (1 - self.final) * wave
        return 1.0


@dataclass
class GradientMethod(Algorithm):
    """``optimizer``: sgd, adamw, muon or sign, see Optimizer. The learning rate at local step s is ``lr`` times the
    schedule's factor. ``betas``: of AdamW. ``weight_decay_on``: all tensors, or matrices, those with two or more
    dimensions.

    With Muon, ``momentum`` has to be given; 0.95 is usual. ``muon_except``: patterns for the names of tensors with two
    dimensions that AdamW updates, not Muon; by default the usual names of embeddings and of the output layer. Where
    layers have numbers for names, give that of the output layer, such as [3.weight]. ``adam_lr``: the learning rate of
    AdamW on what Muon leaves out, with the same schedule; null: ``lr``.

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
    weight_decay_on: str = field(default="all", metadata={"added": True})
    muon_except: list[str] = field(default_factory=lambda: list(NOT_HIDDEN), metadata={"added": True})
    adam_lr: Optional[float] = field(default=None, metadata={"added": True})  # noqa: UP045  (for OmegaConf)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be positive; give a learning rate such as 0.1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: must lie in [0, 1); 0.9 is usual")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay}: must not be negative; 5e-4 is usual")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer}: unknown; give one of {', '.join(OPTIMIZERS)}")
        if self.weight_decay_on not in DECAYED:
            raise ValueError(f"weight_decay_on={self.weight_decay_on}: unknown; give {' or '.join(DECAYED)}")
        if self.optimizer == "muon" and self.nesterov:
            raise ValueError("nesterov=True: Muon looks ahead in any case; give nesterov=false")
        if self.optimizer == "muon" and self.momentum == 0:
            raise ValueError(f"momentum={self.momentum}: Muon needs momentum; give momentum=0.95")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True: needs momentum; give momentum=0.9")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(f"momentum={self.momentum}: AdamW has its own; give momentum=0 and betas")
        if self.optimizer == "sign" and self.momentum:
            raise ValueError(f"momentum={self.momentum}: optimizer=sign has none; give momentum=0")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas={self.betas}: out of range; give two numbers in [0, 1) such as [0.9, 0.999]")
        if self.adam_lr is not None and not self.adam_lr > 0:
            raise ValueError(f"adam_lr={self.adam_lr}: must be positive; give a learning rate such as 0.001, or null")
        if not self.sam >= 0:
            raise ValueError(f"sam={self.sam}: must not be negative; 0.05 is usual, 0 is none")
        if self.sam:
            self.gradients = 2

    def make_optimizer(self) -> Optimizer:
        """Its state is empty; called in ``setup``, after ``context`` is set. Raises ValueError as Optimizer does."""
        first, second = self.betas
        return Optimizer(
            self.optimizer,
            self.momentum,
            self.weight_decay,
            self.nesterov,
            (first, second),
            shapes=self.context.problem.shapes,
            weight_decay_on=self.weight_decay_on,
            muon_except=self.muon_except,
            adam_ratio=1.0 if self.adam_lr is None else self.adam_lr / self.lr,
        )

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
