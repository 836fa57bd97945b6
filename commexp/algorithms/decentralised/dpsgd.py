"""D-PSGD: SGD with gossip in the place of the average."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.gossiping import Gossiping
from commexp.algorithms.training import Training


@dataclass
class DPSGD(Gossiping, Training):
    """Every round, on every worker n:

        x_n <- W^K x_n - lr_t u_n           u_n: the optimiser's direction on the gradient at x_n before the mixing

    W: the topology's weights. The fields: see Training; each worker has an optimiser of its own.
    Source: Lian et al., arXiv 1705.09056, algorithm 1.
    """

    worker_state = "optimizer=update"
    compressible = False
    compressed_by = "choco"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.update = self.make_optimizer()
        self.begin_mixing()

    def moved(self, t: int) -> Tensor:
        """x_n - lr_t u_n, [W, J]."""
        _, gradient = self.gradient(self.x, t)
        x = self.x.clone()
        self.update.step(x, gradient, self.rate(t), t)
        return x

    def round(self, t: int) -> None:
        moved = self.moved(t)
        self.x = self.mixed("x", self.x) + (moved - self.x)
