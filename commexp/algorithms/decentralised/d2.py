"""D2, or exact diffusion: gossip SGD without the bias that heterogeneous data cause."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.base import StepMethod, least_eigenvalue

ROUNDING = 1e-9


@dataclass
class D2(StepMethod):
    """Every round, on every worker n, with g_n the gradient of its batch at x_n:

        psi_n  <- x_n - lr_t g_n
        x_n    <- W (psi_n + x_n - psi_n of the previous round)        in the first round W psi_n

    With ``topology.lazy=true``, (I + W)/2 instead of W, it is exact diffusion.
    Source: Tang et al., D2, arXiv 1803.07068, algorithm 1; Yuan et al., Exact Diffusion, arXiv 1702.05122.
    Raises ValueError if lr is not positive; at set-up if W is not symmetric, or W^K has an eigenvalue of -1/3 or less,
    for which the iteration does not converge.
    """

    compressible = False
    compressible_alternative = "choco"
    worker_state = "psi"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.psi = self.x
        self.start_gossip()
        mixer = context.comm.mixer
        if mixer is None:
            return
        least = least_eigenvalue(mixer, "d2")
        if least <= -1 / 3 + ROUNDING:
            raise ValueError(
                f"algo=d2: its mixing has an eigenvalue of {least:.3f}, and at -1/3 or less it need not converge; give "
                "topology.lazy=true"
            )

    def round(self, t: int) -> None:
        psi = self.x - self.rate(t) * self.gradient(self.x, t)
        self.x, self.psi = self.mixed("x", psi + (self.x - self.psi)), psi
