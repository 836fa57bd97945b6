"""Elastic averaging SGD."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.local.soft_consensus import SoftConsensus


@dataclass
class EASGD(SoftConsensus):
    """Soft consensus towards a centre variable c, which all workers know and which follows the average:

        x_n <- x_n - (beta/N) (x_n - c) + lambda_t u_n
        c   <- (1 - beta) c + beta x_A                      both from the old x_n and c

    ``beta`` in (0, 1]; the pull alpha is beta/N. c is the model. With ``push=0`` it is synchronous EASGD.

    Source: Zhang, Choromanska and LeCun, arXiv 1412.6651, equations 5 and 6.
    """

    state = "centre"
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta={self.beta}: out of range; give a number in (0, 1] such as 0.9")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.centre = context.start.clone()

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        centre = self.part(t).take(self.centre)
        self.pull_and_push(t, departed, average, centre, self.beta / self.context.comm.size)
        self.centre = self.part(t).replaced(self.centre, torch.lerp(centre, average, self.beta))

    def model(self) -> Tensor:
        return self.centre
