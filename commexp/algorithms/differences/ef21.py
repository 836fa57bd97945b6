"""EF21: error feedback by compressed differences to an estimate of each gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.differences.base import DifferenceMethod
from commexp.algorithms.theory import Constants


@dataclass
class EF21(DifferenceMethod):
    """Every round, on every worker n, with a contractive C such as Top-k, and g_n = g = 0 at first:

        m_n = C(grad f_n(x) - g_n)
        g_n <- g_n + m_n;   g <- g + mean_n m_n
        x   <- x - gamma g

    With C = identity this is gradient descent. Source: Richtarik, Sokolov and Fatkhullin, arXiv 2106.05203, algorithm
    2, whose g_n starts as C(grad f_n(x_0)), as here. For the fields see DifferenceMethod.
    """

    codec_kind = "contractive"
    state = "g"
    worker_state = "g_n"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.g = torch.zeros_like(self.x)
        self.g_n = self.x.new_zeros(len(self.weights), len(self.x))

    def target(self, gradients: Tensor) -> Tensor:
        """What g_n is to become, [W, J]."""
        return gradients

    def direction(self, t: int, gradients: Tensor) -> Tensor:
        sent = self.compressed(self.target(gradients) - self.g_n)
        self.g_n, self.g = self.g_n + sent.own, self.g + sent.mean
        return self.g

    def theoretical_step(self, constants: Constants) -> float:
        """1 / (L + Lt sqrt(beta/theta)), Lt^2 = mean_n L_n^2, theta = 1 - sqrt(1 - delta), beta = (1 - delta) / theta:
        theorem 1 of arXiv 2106.05203."""
        constants.need_whole()
        left = math.sqrt(1 - constants.contraction)
        return 1 / (constants.L + constants.rms * left / (1 - left))
