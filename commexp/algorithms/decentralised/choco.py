"""CHOCO-SGD: gossip SGD with compressed messages."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.algorithms.decentralised.base import check_gamma
from commexp.algorithms.decentralised.dpsgd import DPSGD


@dataclass
class Choco(DPSGD):
    """Every round, on every worker n:

        x_n <- mixed(x_n - lr_t u_n)        u_n: the optimiser's direction on the gradient at x_n

    where mixed() is CompressedGossip with step ``gamma``. Without compression it is gossip SGD that mixes after the
    step. Source: Koloskova, Stich and Jaggi, arXiv 1902.00340, algorithm 2.
    Raises ValueError if gamma is not in (0, 1].
    """

    gamma: float = 0.1
    compressible = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gamma(self.gamma)

    def round(self, t: int) -> None:
        self.x = self.mixed("x", self.moved(t))
