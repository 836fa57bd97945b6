"""Stochastic gradient tracking."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.decentralised.proxgt_sa import ProxGTSA
from commexp.algorithms.theory import Constants


@dataclass
class DSGT(ProxGTSA):
    """v_n is the gradient of one batch. Its change is added after the mixing:

        y_n <- W^K y_n + v_n - v_n of the previous round;    x_n <- W^K prox_{lr h}(x_n - lr y_n)

    Source: Pu and Nedic, Distributed stochastic gradient tracking methods, arXiv 1805.11454, in the form with
    the step before the mixing, and with a prox. For the fields see GradientTracking.
    """

    def theoretical_step(self, constants: Constants) -> float:
        """With rho = 1 - gap, L = max_n L_n, mu of F and Gamma = 2, the least of

            (1 - rho^2) / (12 rho^2 L)
            (1 - rho^2)^2 / (2 sqrt(Gamma) L max(6 rho ||W - I||, 1 - rho^2)),           ||W - I|| <= 1 + rho
            (1 - rho^2) / (3 rho^(2/3) L) ((mu / L)^2 (Gamma - 1) / (Gamma (Gamma + 1)))^(1/3)

        Theorem 1 of arXiv 1805.11454, from memory, for strongly convex f_n and a fixed graph; a conservative bound.
        """
        constants.need_whole()
        if constants.gap is None:
            raise ValueError("lr=theory: the step is known for graphs that stay the same; give another topology")
        if constants.omega != 0:
            raise ValueError("lr=theory: no step is known of compressed gossip with DSGT; give compress=none")
        if not constants.mu > 0:
            raise ValueError("lr=theory: DSGT's step is known for strongly convex problems; give model.l2=0.01 or more")
        L, rho, gamma = constants.largest, 1 - constants.gap, 2.0
        left = 1 - rho**2
        steps = [left**2 / (2 * math.sqrt(gamma) * L * max(6 * rho * (1 + rho), left))]
        if rho:
            ratio = (constants.mu / L) ** 2 * (gamma - 1) / (gamma * (gamma + 1))
            steps += [left / (12 * rho**2 * L), left / (3 * rho ** (2 / 3) * L) * ratio ** (1 / 3)]
        return min(steps)

    def tracked(self, change: Tensor) -> Tensor:
        return self.mixed("y", self.y) + change
