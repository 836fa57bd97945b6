"""ProxGT-SA: proximal gradient tracking with plain stochastic gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.decentralised.tracking import GradientTracking


@dataclass
class ProxGTSA(GradientTracking):
    """v_n is the mean of b = ``batch_size`` fresh stochastic gradients at x_n. For the rest see GradientTracking.
    Source: Xin, Das, Khan and Kar, arXiv 2110.01594, algorithm 2."""

    def estimate(self, t: int) -> Tensor:
        return self.at(self.x, self.context.problem.batch(t))
