"""D-PSGD: SGD with gossip instead of an all-reduce."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.base import DecentralisedMethod
from commexp.algorithms.gradient.base import GradientMethod


@dataclass
class DPSGD(DecentralisedMethod, GradientMethod):
    """Every round, on every worker n:

        x_n <- W^K x_n - lr_t u_n           u_n: the optimiser's direction on the gradient at x_n before the mixing

    W: the topology's weights. Each worker has its own optimiser. For the fields see GradientMethod.
    Source: Lian et al., arXiv 1705.09056, algorithm 1.
    """

    worker_state = "optimizer=update"
    compressible = False
    compressible_alternative = "choco"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.update = self.make_optimizer()
        self.start_gossip()

    def moved(self, t: int) -> Tensor:
        """x_n - lr_t u_n, [W, J]."""
        _, gradient = self.gradient(self.x, t)
        x = self.x.clone()
        self.update.step(x, gradient, self.rate(t), t)
        return x

    def round(self, t: int) -> None:
        moved = self.moved(t)
        self.x = self.mixed("x", self.x) + (moved - self.x)
