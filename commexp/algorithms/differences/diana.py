"""DIANA: unbiased compression of differences to a shift that learns each worker's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.differences.base import DifferenceMethod
from commexp.algorithms.theory import Constants


@dataclass
class DIANA(DifferenceMethod):
    """Every round, on every worker n, with an unbiased C of variance omega, and h_n = h = 0 at first:

        m_n = C(grad f_n(x) - h_n)
        g   = h + mean_n m_n
        h_n <- h_n + alpha m_n;   h <- h + alpha mean_n m_n
        x   <- x - gamma g

    ``alpha``: null gives 1 / (1 + omega), the largest of the theory. With omega = 0 this is gradient descent.
    Sources: Mishchenko, Gorbunov, Takac and Richtarik, arXiv 1901.09269; any unbiased C: Horvath et al.,
    arXiv 1904.05115. For the other fields see DifferenceMethod. Raises ValueError if alpha is not in (0, 1].

    Where a share s of the workers takes part, g = h + (1/s) mean_n m_n, which is unbiased, and the others keep their
    h_n: Philippenko and Dieuleveut, arXiv 2006.14591, the variant with memory on the server, without compression of x.
    """

    codec_kind = "unbiased"
    samples_workers = True
    state = "h"
    worker_state = "h_n"
    alpha: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: out of range; give a number in (0, 1], or null for 1 / (1 + omega)")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.h = torch.zeros_like(self.x)
        self.h_n = self.x.new_zeros(len(self.weights), len(self.x))
        self.rate = self.alpha or 1 / (1 + self.variance)

    def direction(self, t: int) -> Tensor:
        sent = self.exchange(t, lambda rows: self.evaluated(t, rows) - self.h_n[rows])
        g = self.h + sent.mean / self.share
        self.h_n, self.h = self.h_n + self.rate * sent.own, self.h + self.rate * sent.mean
        return g

    def theoretical_step(self, constants: Constants) -> float:
        """1 / (L (1 + 6 V)) with L = max_n L_n and V = omega / N, for convex f_n and alpha of at most 1 / (1 + omega):
        Gorbunov, Hanzely and Richtarik, arXiv 1905.11261, on DIANA. Where the workers draw alike, omega takes the place
        of omega / N. Where r of N workers take part, V = omega / r + (N - r) / (r (N - 1)): ours, from their theorem,
        by the variance of a mean of r differences drawn without replacement."""
        constants.need_whole()
        if constants.mu < 0:
            raise ValueError("lr=theory: DIANA's step is known for convex functions; give model.nonconvex=0")
        if self.alpha is not None and self.alpha * (1 + constants.variance) > 1:
            raise ValueError(f"alpha={self.alpha}: above 1 / (1 + omega), so that no step is known; give null")
        return 1 / (constants.largest * (1 + 6 * (constants.variance_of_mean + constants.variance_of_sample)))
