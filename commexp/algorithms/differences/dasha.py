"""DASHA: compressed changes of gradients, and a part of what is still missing, without synchronisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.differences.base import DifferenceMethod, Rows
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

    Where a share s of the workers takes part, the server sends x and x' to those, g_n = h_n = g = 0 at first, no round
    is of whole gradients, and worker n computes two gradients:

        k_n = (grad f_n(x) - grad f_n(x') - b (h_n - grad f_n(x'))) / s         b = s / (2 - s)
        m_n = C(k_n - a (g_n - h_n))
        h_n <- h_n + k_n;   g_n <- g_n + m_n;   g <- g + mean_n m_n

    With s = 1 this is the rule above, where h_n = grad f_n(x'). Source: DASHA-PP, Tyurin and Richtarik,
    arXiv 2205.15580, for exact gradients, compared with the authors' code.
    """

    codec_kind = "unbiased"
    samples_workers = True
    all_samples = True
    called_with = 2
    state = "g previous"
    worker_state = "g_n h_n"
    a: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.a is not None and not 0 < self.a <= 1:
            raise ValueError(f"a={self.a}: out of range; give a number in (0, 1], or null for 1 / (2 omega + 1)")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.g = torch.zeros_like(self.x)
        self.g_n = self.x.new_zeros(len(self.weights), len(self.x))
        self.h_n = torch.zeros_like(self.g_n)
        self.previous = self.x  # of use where a share of the workers takes part
        self.momentum = self.a or 1 / (2 * self.variance + 1)

    def sends_whole(self, t: int) -> bool:
        return t == 0 and self.context.drawn is None

    def direction(self, t: int) -> Tensor:
        if self.sends_whole(t):
            self.h_n = self.evaluated(t, slice(None)).clone()
            self.g_n, self.g = self.h_n, self.mean(self.h_n)
            return self.g
        sent = self.exchange(t, lambda rows: self.differences(t, rows))
        self.g_n, self.g = self.g_n + sent.own, self.g + sent.mean
        self.previous = self.x
        return self.g

    def differences(self, t: int, rows: Rows) -> Tensor:
        """k_n - a (g_n - h_n) of the workers ``rows`` here, [rows, J]; their h_n follow."""
        g_n, h_n = self.g_n[rows], self.h_n[rows]
        if self.context.drawn is None:
            gradients = self.evaluated(t, rows)
            moved, self.h_n = gradients - h_n, gradients.clone()
        else:
            before, share = self.evaluated(t, rows, self.previous).clone(), self.share
            moved = (self.evaluated(t, rows) - before - share / (2 - share) * (h_n - before)) / share
            self.h_n = self.h_n.clone()
            self.h_n[rows] += moved
        return moved - self.momentum * (g_n - h_n)

    @property
    def known(self) -> Tensor:
        return torch.cat([self.x, self.previous])

    @known.setter
    def known(self, told: Tensor) -> None:
        self.x, self.previous = told.chunk(2)

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        return [(1 if self.context.drawn is None else 2) * size for size in super().gradients_of(lengths)]

    def theoretical_step(self, constants: Constants) -> float:
        """1 / (L + Lt sqrt(16 omega (2 omega + 1) / N)), Lt^2 = mean_n L_n^2: theorem 6.1 of arXiv 2202.01268,
        quoted from memory: the authors' code has omega (4 omega + 1), which allows a longer step. Where the workers
        draw alike, omega takes the place of omega / N. Where r of N take part, s = r / N, the root is of
        (48 omega (2 omega + 1) + 16 (N - r) / (N - 1)) / (N s^2): arXiv 2205.15580, quoted from memory, too."""
        if self.a is not None:
            raise ValueError(f"a={self.a}: the step is known for 1 / (2 omega + 1); give null, or a number as lr")
        share, mean = constants.share, constants.variance_of_mean  # of r workers
        grown = 16 * (2 * constants.variance + 1) * mean
        if share < 1:
            mean *= share if constants.independent else 1.0
            grown = 48 * (2 * constants.variance + 1) * mean + 16 * (1 - share) / (constants.workers - 1)
            grown /= share**2
        return 1 / (constants.L + constants.rms * math.sqrt(grown))
