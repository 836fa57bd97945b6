"""ProxSkip: local gradient steps that a shared coin ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Optional

from torch import Tensor

from commexp.algorithms.local.control_variates import ControlVariates
from commexp.algorithms.theory import Constants
from commexp.seeding import numpy_generator

FLIPPED = 1024  # lengths that are drawn together


@dataclass
class ProxSkip(ControlVariates):
    """ProxSkip for consensus, also called Scaffnew. Worker n keeps h_n, zero at first, with sum_n h_n = 0. g is the
    learning rate. In every local step

        y_n <- x_n - g (grad f_n(x_n) - h_n)
        tails:    x_n <- y_n
        heads:    x   <- mean_n (y_n - (g/p) h_n);    h_n <- h_n + (p/g) (x - y_n);    x_n <- x

    The coin is the same for all workers and shows heads with probability p, ``p``, by default 1/``tau``: a round has
    1/p local steps on average. It is drawn from the run's seed, so that the length of every round is known before the
    run. ``rounds`` counts heads; the last step of a run with ``steps`` counts as heads.

    The workers send C(y_n - x_A), x_A from the last exchange, through the compressor C: x <- x_A + mean_n C(y_n - x_A),
    and x - y_n in the change of h_n is mean_m C(y_m - x_A) - C(y_n - x_A); without compression these are the rules
    above, as the h_n sum to 0. With p = 1 it is gradient descent. For L-smooth, mu-strongly convex f_n and full
    gradients it converges linearly to the optimum of F with g = 1/L, with fewest exchanges for p = sqrt(mu/L).

    Source: Mishchenko et al., arXiv 2202.09357, algorithm 2; the compressor is ours. Raises ValueError
    for values out of range and what ControlVariates refuses.
    """

    p: Optional[float] = None  # noqa: UP045  (for OmegaConf)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p is not None and not 0 < self.p <= 1:
            raise ValueError(f"p={self.p}: out of range; give a probability in (0, 1], or null for 1/tau")

    @property
    def heads(self) -> float:
        return 1 / self.tau if self.p is None else self.p

    # -- rounds

    def flips(self) -> Iterator[int]:
        """The number of flips up to each of the coin's heads, without end."""
        coin = numpy_generator(self.run_seed, "proxskip")
        while True:
            yield from coin.geometric(self.heads, FLIPPED).tolist()

    def periods(self, steps: int) -> list[int]:
        periods: list[int] = []
        left = steps
        for length in self.flips():
            periods.append(min(length, left))
            left -= periods[-1]
            if not left:
                return periods
        raise AssertionError("a coin has no end")

    def lengths(self, steps: int) -> list[int]:
        return self.periods(steps)

    def steps_in(self, rounds: int) -> int:
        return sum(islice(self.flips(), rounds))

    # -- theory

    def theoretical_step(self, constants: Constants) -> float:
        """1/(L + weight_decay), L = max_n L_n."""
        constants.need_whole()
        if constants.omega != 0:
            raise ValueError("lr=theory: no step is known of ProxSkip with compression; give compress=none")
        if self.sam:
            raise ValueError("lr=theory: the step is that of gradient descent; give algo.sam=0")
        return 1 / (constants.largest + self.weight_decay)

    def theoretical_probability(self, constants: Constants) -> float | None:
        """sqrt(mu/L), with mu and L after weight decay. The theory has the mu of the least convex f_n; here it is that
        of F, which is not less."""
        mu, largest = constants.mu + self.weight_decay, constants.largest + self.weight_decay
        return math.sqrt(mu / largest) if mu > 0 else None

    # -- the exchange

    def exchange(self, t: int) -> None:
        change, own = self.sent(self.codec("x", t), self.differences(t)["x"])
        rate = self.rate(self.ends[t + 1] - 1)
        self.controls = self.controls.add(change - own, alpha=self.heads / rate)
        self.receive(t, {"x": change}, self.x)

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        self.continue_from(t, average)
