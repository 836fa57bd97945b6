"""EF21-SGDM: EF21 on momenta of stochastic gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.differences.base import Rows
from commexp.algorithms.differences.ef21 import EF21
from commexp.algorithms.theory import Constants


@dataclass
class EF21SGDM(EF21):
    """Every round, on every worker n, with a contractive C, v_n the first gradient and g_n = g = 0 at first:

        v_n <- (1 - eta) v_n + eta grad f_n(x; xi)          xi: one batch
        m_n = C(v_n - g_n)
        g_n <- g_n + m_n;   g <- g + mean_n m_n
        x   <- x - gamma g

    With ``eta`` = 1 this is EF21. Source: Fatkhullin, Tyurin and Richtarik, arXiv 2305.15155, algorithm 1, whose g_n
    starts as v_n; here its first message is compressed like the others. For the other fields see DifferenceMethod.
    Raises ValueError if eta is not in (0, 1].
    """

    samples_workers = False  # nobody has said what a momentum is that rests
    worker_state = "v_n"
    eta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.eta <= 1:
            raise ValueError(f"eta={self.eta}: out of range; give the weight of a new gradient in (0, 1], such as 0.1")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.v_n: Tensor | None = None

    def target(self, t: int, rows: Rows) -> Tensor:
        gradients = super().target(t, rows)
        self.v_n = gradients.clone() if self.v_n is None else self.v_n.lerp(gradients, self.eta)
        return self.v_n

    def theoretical_step(self, constants: Constants) -> float:
        """min(delta / (20 Lt), eta / (7 L)), Lt^2 = mean_n L_n^2: theorem 3 of arXiv 2305.15155, for batches, too.
        The constants are quoted from memory, not compared with the paper."""
        return min(constants.contraction / (20 * constants.rms), self.eta / (7 * constants.L))
