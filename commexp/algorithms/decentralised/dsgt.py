"""Stochastic gradient tracking."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.decentralised.proxgt_sa import ProxGTSA


@dataclass
class DSGT(ProxGTSA):
    """v_n is the gradient of one batch. Its change is added after the mixing:

        y_n <- W^K y_n + v_n - v_n of the previous round;    x_n <- W^K prox_{lr h}(x_n - lr y_n)

    Source: Pu and Nedic, Distributed stochastic gradient tracking methods, arXiv 1805.11454, in the form with
    the step before the mixing, and with a prox. For the fields see GradientTracking.
    """

    def tracked(self, change: Tensor) -> Tensor:
        return self.mixed("y", self.y) + change
