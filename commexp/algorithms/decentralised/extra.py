"""EXTRA: gossip gradient descent that comes to the exact minimum with a constant step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.base import StepMethod, least_eigenvalue
from commexp.algorithms.theory import Constants


@dataclass
class Extra(StepMethod):
    """Every round, on every worker n, with g_n the gradient of its batch at x_n, and s_n = 0 before the first:

        x_n <- (W x)_n - lr_t g_n - s_n
        s_n <- s_n + (x_n - (W x)_n)/2            both of the x before this round

    With a constant step and W~ = (I + W)/2 this is  x_{k+2} = (I + W) x_{k+1} - W~ x_k - lr (g_{k+1} - g_k)  from
    x_1 = W x_0 - lr g_0, added up over k: one vector a round. It converges for convex f_n if lr < 2 lambda_min(W~)/L, L
    the largest of the f_n's constants.
    Source: Shi, Ling, Wu and Yin, arXiv 1404.6264, equations 2.4 and 2.13, theorem 3.3; from memory, for the search
    that was at hand gives no more of the paper than its abstract.
    Raises ValueError if lr is not positive; at set-up if W is not symmetric, or changes.
    """

    compressible = False
    compressible_alternative = "choco"
    worker_state = "correction"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.correction = torch.zeros_like(self.x)
        self.start_gossip()
        if context.comm.mixer is not None:
            least_eigenvalue(context.comm.mixer, "extra")

    def theoretical_step(self, constants: Constants) -> float:
        """lambda_min(W~) / max_n L_n, half of the bound."""
        constants.need_whole()
        if constants.least is None:
            raise ValueError("lr=theory: needs symmetric weights that stay the same; give another topology")
        return (1 + constants.least) / 2 / constants.largest

    def round(self, t: int) -> None:
        gradient = self.gradient(self.x, t)
        mixed = self.mixed("x", self.x)
        x = mixed - self.rate(t) * gradient - self.correction
        self.correction = self.correction + (self.x - mixed) / 2
        self.x = x
