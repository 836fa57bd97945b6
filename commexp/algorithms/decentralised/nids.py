"""NIDS: a proximal gradient method whose step does not depend on the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from commexp.algorithms.base import AlgorithmContext, Sent
from commexp.algorithms.decentralised.base import StepMethod, least_eigenvalue
from commexp.algorithms.theory import Constants
from commexp.compressors import Compressor


@dataclass
class NIDS(StepMethod):
    """Every round, on every worker n, for  min (1/N) sum_n f_n(x) + h(x),  with W~ = (I + W)/2 and g_n the gradient of
    its batch at x_n:

        psi_n  <- x_n - lr_t g_n
        z_n    <- z_n - x_n + (W~ (x + psi - psi of the previous round))_n
        x_n    <- prox_{lr h}(z_n)

    In the first round z_n <- psi_n, and nothing is sent. Without h, z = x, and from the second round on this is exact
    diffusion, x <- W~ (2 x - x of the previous round - lr (g - g of the previous round)), which also mixes in its
    first (algo=d2 with topology.lazy=true). It converges for convex f_n if lr < 2/L, L the largest of the f_n's
    constants, on every graph. The step is the same for all workers, and W~ = I - c lr (I - W) with c = 1/(2 lr).
    Source: Li, Shi and Yan, arXiv 1704.07807, algorithm 1; from memory, for the search that was at hand gives no more
    of the paper than its abstract and introduction.
    Raises ValueError if lr is not positive; at set-up if W is not symmetric, or changes.
    """

    prelude = 1
    proximal = True
    compressible = False
    compressible_alternative = "dsgt"
    worker_state = "z psi"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.z = self.psi = self.x
        self.start_gossip()
        if context.comm.mixer is not None:
            least_eigenvalue(context.comm.mixer, "nids")

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        return super().sends(t, shapes, dim, codec) if t else []

    def theoretical_step(self, constants: Constants) -> float:
        """1 / max_n L_n, half of the bound."""
        constants.need_whole()
        return 1 / constants.largest

    def round(self, t: int) -> None:
        rate = self.rate(t)
        psi = self.x - rate * self.gradient(self.x, t)
        if t:
            u = self.x + (psi - self.psi)
            self.z = self.z - self.x + (u + self.mixed("x", u)) / 2
        else:
            self.z = psi
        self.psi = psi
        self.x = self.context.problem.prox.prox(self.z, rate)
