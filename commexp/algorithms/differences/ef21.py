"""EF21: error feedback by compressed differences to an estimate of each gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.differences.base import DifferenceMethod, Rows
from commexp.algorithms.theory import Constants


@dataclass
class EF21(DifferenceMethod):
    """Every round, on every worker n, with a contractive C such as Top-k, and g_n = g = 0 at first:

        m_n = C(grad f_n(x) - g_n)
        g_n <- g_n + m_n;   g <- g + mean_n m_n
        x   <- x - gamma g

    With C = identity this is gradient descent. Source: Richtarik, Sokolov and Fatkhullin, arXiv 2106.05203, algorithm
    2, whose g_n starts as C(grad f_n(x_0)), as here. For the fields see DifferenceMethod.

    Where a share of the workers takes part, this is EF21-PP of Fatkhullin, Sokolov, Gorbunov, Li and Richtarik,
    arXiv 2110.03294, where every worker takes part with a probability; here a fixed number does.
    """

    codec_kind = "contractive"
    samples_workers = True
    state = "g"
    worker_state = "g_n"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.g = torch.zeros_like(self.x)
        self.g_n = self.x.new_zeros(len(self.weights), len(self.x))

    def target(self, t: int, rows: Rows) -> Tensor:
        """What the g_n of the workers ``rows`` here are to become, [rows, J]."""
        return self.evaluated(t, rows)

    def direction(self, t: int) -> Tensor:
        sent = self.exchange(t, lambda rows: self.target(t, rows) - self.g_n[rows])
        self.g_n, self.g = self.g_n + sent.own, self.g + sent.mean
        return self.g

    def theoretical_step(self, constants: Constants) -> float:
        """1 / (L + Lt sqrt(beta/theta)), Lt^2 = mean_n L_n^2, theta = 1 - sqrt(1 - delta), beta = (1 - delta) / theta:
        theorem 1 of arXiv 2106.05203, quoted from memory. Where a share of the workers takes part: see ``growth``.
        """
        constants.need_whole()
        grown = growth(constants.contraction, constants.share)
        return 1 / (constants.L + constants.rms * math.sqrt(grown))


def growth(delta: float, share: float) -> float:
    """beta/theta, where a worker takes part with probability p = ``share``: the least over s, r > 0 of

        (p (1 + 1/s) (1 - delta) + (1 - p) (1 + 1/r)) / (p (1 - (1 + s) (1 - delta)) - (1 - p) r)

    with a positive denominator. For the error G_n = ||g_n - grad f_n||^2 and the last step d of x, a worker that takes
    part has G_n <= (1 + s) (1 - delta) G_n + (1 + 1/s) (1 - delta) L_n^2 ||d||^2, and one that rests has
    G_n <= (1 + r) G_n + (1 + 1/r) L_n^2 ||d||^2. Source: arXiv 2110.03294, on EF21-PP, with s and r chosen.
    """
    left = math.sqrt(1 - delta)
    if share == 1:
        return (left / (1 - left)) ** 2
    shares = np.linspace(0.0, 1.0, 402)[1:-1]
    s = delta / (1 - delta) * shares[:, None] if delta < 1 else shares[:, None]
    kept = 1 - (1 + s) * (1 - delta)
    r = share * kept / (1 - share) * shares
    above = share * (1 + 1 / s) * (1 - delta) + (1 - share) * (1 + 1 / r)
    return float((above / (share * kept - (1 - share) * r)).min())
