"""Soft consensus: the exchange pulls workers towards a point and pushes them away from their average."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.gradient.base import row_norms
from commexp.algorithms.local.base import LocalMethod

SCHEDULES = ("constant", "increasing", "decreasing")


@dataclass
class SoftConsensus(LocalMethod):
    """After ``tau`` local steps, with x_A the average of the workers and u_n = (x_n - x_A) / ||x_n - x_A||:

        x_n <- x_n - alpha (x_n - x_C) + lambda_t u_n

    The concrete method defines the pull alpha and the point x_C. The push lambda_t is ``push`` times the following
    factor, where p is the share of the run's local steps that are done:

        constant 1      increasing (1 - cos(pi p)) / 2      decreasing (1 + cos(pi p)) / 2      (``push_schedule``)

    With x_C = x_A, the distance r of a worker from x_A follows r <- |1 - alpha| r + lambda, which converges to
    lambda / alpha. A worker at x_A is not pushed. With fragments, all of
    this holds within each fragment.

    Source: Dimlioglu and Choromanska, arXiv 2507.20424.
    """

    uses_departed = True
    push: float = 0.0
    push_schedule: str = "increasing"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.push >= 0:
            raise ValueError(f"push={self.push}: must not be negative; give a distance such as 0.1, or 0 for none")
        if self.push_schedule not in SCHEDULES:
            raise ValueError(f"push_schedule={self.push_schedule}: unknown; give one of {', '.join(SCHEDULES)}")

    def push_at(self, t: int) -> float:
        """lambda_t of round t's exchange."""
        share = self.ends[t + 1] / self.context.steps
        if self.push_schedule == "constant":
            return self.push
        wave = math.cos(math.pi * share)
        return self.push * (1 - wave if self.push_schedule == "increasing" else 1 + wave) / 2

    def pull_and_push(self, t: int, x: Tensor, average: Tensor, centre: Tensor, pull: float) -> None:
        """``x``: the x_n that were sent, [W, J_p]. ``average``: x_A [J_p], which must be that of this round if there is
        a push. ``centre``: x_C [J_p]. ``pull``: alpha."""
        pulled, pulled_average = torch.lerp(x, centre.expand_as(x), pull), torch.lerp(average, centre, pull)
        push = self.push_at(t)
        if push:
            offsets = x - average
            norms = row_norms(offsets).clamp(min=torch.finfo(x.dtype).tiny)
            x = torch.addcmul(pulled, offsets, (push / norms)[:, None])
        else:
            x = pulled.clone()
        self.continue_apart(t, x, pulled, pulled_average)
