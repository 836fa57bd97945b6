"""Gradient tracking: every worker tracks the mean gradient of all workers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.base import DecentralisedMethod, check_gamma, check_lr
from commexp.algorithms.gradient.schedule import Schedule


@dataclass
class GradientTracking(DecentralisedMethod):
    """Every round t, on every worker n, for  min (1/N) sum_n f_n(x) + h(x),  with y_n = v_n = 0 before the first:

        v_n    an estimate of grad f_n(x_n), which the concrete method defines
        y_n <- W^K (y_n + v_n - v_n of the previous round)            mean_n y_n = mean_n v_n in every round
        z_n <- prox_{lr h}(x_n - lr y_n)
        x_n <- W^K z_n

    ``lr``: the step size alpha, multiplied by the schedule's factor. ``gamma``: the step of compressed gossip; with a
    compressor, y and z are mixed by CompressedGossip, as in BEER (arXiv 2201.13320). ``debug=true`` asserts in every
    round that the two means are equal.
    Source: Xin, Das, Khan and Kar, arXiv 2110.01594, algorithm 1.
    Raises ValueError if lr is not positive or gamma not in (0, 1].
    """

    lr: float = 0.05
    gamma: float = 0.1
    schedule: Schedule = field(default_factory=Schedule)
    proximal = True
    worker_state = "y v"
    mixed_rows = ("x", "y")

    def __post_init__(self) -> None:
        check_lr(self.lr)
        check_gamma(self.gamma)

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.y, self.v = torch.zeros_like(self.x), torch.zeros_like(self.x)
        self.start_gossip()

    @abstractmethod
    def estimate(self, t: int) -> Tensor:
        """v_t at x, [W, J], as a new tensor."""

    def tracked(self, change: Tensor) -> Tensor:
        """The next y, given ``change`` = v_t - v_{t-1}."""
        return self.mixed("y", self.y + change)

    def round(self, t: int) -> None:
        v = self.estimate(t)
        self.y, self.v = self.tracked(v - self.v), v
        if self.context.debug:
            self.check_means(t)
        lr = self.lr * self.schedule.factor(t, self.context.steps)
        self.x = self.mixed("x", self.context.problem.prox.prox(self.x - lr * self.y, lr))

    def at(self, x: Tensor, batch: object) -> Tensor:
        """The gradients of f_n at x_n on a batch, [W, J], as a new tensor."""
        return self.context.problem.loss_and_grad(x, batch)[1].clone()

    def check_means(self, t: int) -> None:
        """Raises AssertionError if mean y and mean v differ by more than rounding errors."""
        difference = float(self.context.comm.watched_mean(self.y - self.v).abs().max())
        size = float(self.context.comm.watched(self.v.abs().amax(1)).max())
        allowed = 1e-10 if self.x.dtype == torch.float64 else 1e-3
        if not difference <= allowed * max(1.0, size):
            raise AssertionError(
                f"round {t + 1}: mean y and mean v differ by {difference:.3g}, of entries up to {size:.3g}"
            )
