"""SGP: stochastic gradient push, on directed graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext, Sent
from commexp.algorithms.decentralised.base import DecentralisedMethod
from commexp.algorithms.gradient.base import GradientMethod
from commexp.comm.exchanges import GOSSIP
from commexp.compressors import Compressor


@dataclass
class SGP(DecentralisedMethod, GradientMethod):
    """Every round t, on every worker n, with z_n = x_n / w_n and w_n = 1 before the first:

        x_n <- sum_m p_nm (x_m - lr_t u_m)          u_m: the optimiser's direction on the gradient at z_m
        w_n <- sum_m p_nm w_m

    P = W_t: the topology's weights, of which every column sums to 1, so that sums over workers stay what they are. A
    worker sends x and the number w to those that the graph says, J + 1 numbers for each edge, one way. The models are
    the z_n; mean_n x_n is evaluated. Each worker has its own optimiser; weight decay is that of z.

    Where P is symmetric and doubly stochastic, w = 1, and this is gossip SGD that mixes after the step (algo=choco
    without compression); algo=dpsgd mixes before it. For the fields see GradientMethod.
    Source: Assran, Loizou, Ballas and Rabbat, arXiv 1811.10792, algorithm 1.
    """

    push_sum = True
    worker_state = "w optimizer=update"
    compressible = False
    compressible_alternative = "choco"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.update = self.make_optimizer()
        self.w = torch.ones_like(self.x[:, :1])
        self.start_gossip()

    @property
    def models(self) -> Tensor:
        return self.x / self.w

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        return [Sent(dim + 1, exchange=GOSSIP)]

    def round(self, t: int) -> None:
        z = self.models
        _, gradient = self.gradient(z, t)
        moved = z.clone()
        self.update.step(moved, gradient, self.rate(t), t)
        pushed = self.mixed("x", torch.cat([self.x + (moved - z), self.w], dim=1))
        self.x, self.w = pushed[:, :-1].contiguous(), pushed[:, -1:].contiguous()
