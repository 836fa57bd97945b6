"""D-PSGD: SGD with gossip in the place of the average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.base import DecentralisedMethod
from commexp.algorithms.gradient.base import GradientMethod
from commexp.state import under_prefix, with_prefix


@dataclass
class DPSGD(DecentralisedMethod, GradientMethod):
    """Every round, on every worker n:

        x_n <- W^K x_n - lr_t u_n           u_n: the optimiser's direction on the gradient at x_n before the mixing

    W: the topology's weights. The fields: see GradientMethod; each worker has an optimiser of its own.
    Source: Lian et al., arXiv 1705.09056, algorithm 1.
    """

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

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), **with_prefix("workers.optimizer", self.update.state_dict())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.update.load_state_dict(under_prefix("workers.optimizer", state))
