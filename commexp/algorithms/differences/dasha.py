"""DASHA: compressed changes of gradients, and a part of what is still missing, without synchronisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.differences.base import DifferenceMethod
from commexp.algorithms.theory import Constants


@dataclass
class DASHA(DifferenceMethod):
    """In the first round all workers send g_n = grad f_n(x), and g = mean_n g_n. In every other one, on every worker n,
    with an unbiased C of variance omega, gradients over all samples, and x' of the previous round:

        m_n = C(grad f_n(x) - grad f_n(x') - a (g_n - grad f_n(x')))
        g_n <- g_n + m_n;   g <- g + mean_n m_n
        x   <- x - gamma g

    ``a``: null gives 1 / (2 omega + 1). With omega = 0 this is gradient descent. The previous gradients are kept, so
    that a round takes one gradient. Source: Tyurin and Richtarik, arXiv 2202.01268, algorithm 1 for exact gradients.
    For the other fields see DifferenceMethod. Raises ValueError if a is not in (0, 1].
    """

    codec_kind = "unbiased"
    all_samples = True
    state = "g"
    worker_state = "g_n before"
    a: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.a is not None and not 0 < self.a <= 1:
            raise ValueError(f"a={self.a}: out of range; give a number in (0, 1], or null for 1 / (2 omega + 1)")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.g = torch.zeros_like(self.x)
        self.g_n = self.x.new_zeros(len(self.weights), len(self.x))
        self.before = torch.zeros_like(self.g_n)
        self.momentum = self.a or 1 / (2 * self.variance + 1)

    def sends_whole(self, t: int) -> bool:
        return t == 0

    def direction(self, t: int) -> Tensor:
        gradients = self.evaluated(t, len(self.before))
        if self.sends_whole(t):
            self.g_n, self.g = gradients.clone(), self.mean(gradients)
        else:
            sent = self.compressed(gradients - self.before - self.momentum * (self.g_n - self.before))
            self.g_n, self.g = self.g_n + sent.own, self.g + sent.mean
        self.before = gradients.clone()
        return self.g

    def theoretical_step(self, constants: Constants) -> float:
        """1 / (L + Lt sqrt(16 omega (2 omega + 1) / N)), Lt^2 = mean_n L_n^2: theorem 6.1 of arXiv 2202.01268,
        quoted from memory: the authors' code has omega (4 omega + 1), which allows a longer step. Where the workers
        draw alike, omega takes the place of omega / N."""
        if self.a is not None:
            raise ValueError(f"a={self.a}: the step is known for 1 / (2 omega + 1); give null, or a number as lr")
        grown = 16 * (2 * constants.variance + 1) * constants.variance_of_mean
        return 1 / (constants.L + constants.rms * math.sqrt(grown))
