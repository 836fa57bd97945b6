"""MARINA: compressed changes of gradients, and now and then whole gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.differences.base import DifferenceMethod
from commexp.algorithms.theory import Constants
from commexp.seeding import numpy_generator


@dataclass
class MARINA(DifferenceMethod):
    """Every round, on every worker n, with an unbiased C of variance omega and gradients over all samples:

        g <- mean_n grad f_n(x)                                               in the first round, and with probability p
        g <- g + mean_n C(grad f_n(x) - grad f_n(x of the previous round))    otherwise
        x <- x - gamma g

    All workers share the coin, which depends on the seed and the round. ``p``: null gives the bytes of a message over
    those of a whole vector, so that both cost the same. With p = 1 this is gradient descent. The previous gradients
    are kept, so that a round takes one gradient. Every round has all workers, because those of whole gradients need
    them; DASHA does with a share of them.
    Source: Gorbunov, Burlachenko, Li and Richtarik, arXiv 2102.07845, algorithm 1. For the other fields see
    DifferenceMethod. Raises ValueError if p is not in (0, 1].
    """

    codec_kind = "unbiased"
    all_samples = True
    state = "g"
    worker_state = "before"
    p: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p is not None and not 0 < self.p <= 1:
            raise ValueError(f"p={self.p}: out of range; give a probability in (0, 1], or null")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.g = torch.zeros_like(self.x)
        self.before = self.x.new_zeros(len(self.weights), len(self.x))

    def probability(self, size: float) -> float:
        """p. ``size``: bytes of a message over those of a whole vector."""
        return self.p or min(1.0, size)

    def sends_whole(self, t: int) -> bool:
        context, dim = self.context, self.context.problem.dim
        itemsize = context.start.element_size()
        p = self.probability(context.compressor.payload(dim, itemsize) / (dim * itemsize))
        return t == 0 or numpy_generator(context.codec_context.seed, "MARINA's coin", t).random() < p

    def direction(self, t: int) -> Tensor:
        gradients = self.evaluated(t, slice(None))
        if self.sends_whole(t):
            self.g = self.mean(gradients)
        else:
            self.g = self.g + self.exchange(t, lambda _: gradients - self.before).mean
        self.before = gradients.clone()
        return self.g

    def theoretical_step(self, constants: Constants) -> float:
        """1 / (L + Lt sqrt((1 - p) omega / (p N))), Lt^2 = mean_n L_n^2: theorem 2.1 of arXiv 2102.07845, which writes
        Lt for L, too. Where the workers draw alike, omega takes the place of omega / N."""
        p = self.probability(constants.size)
        return 1 / (constants.L + constants.rms * math.sqrt((1 - p) / p * constants.variance_of_mean))
