"""The constants of a problem, a codec and a graph, from which a method computes the step that its theory allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """``L``: F is L-smooth. ``L_n``: f_n is L_n-smooth, for all N workers. ``mu``: F is mu-strongly convex; 0: convex;
    below 0: perhaps not even that. ``whole``: a worker's gradients are of all its samples, not of batches.

    ``delta``: E||C(a) - a||^2 <= (1 - delta) ||a||^2 for the vectors that a worker compresses; None where C does not
    contract. ``omega``: E||C(a) - a||^2 <= omega ||a||^2, E C(a) = a; None where C is biased. ``independent``: whether
    the workers draw independently of each other. ``size``: bytes of a message over those of the vector.
    ``gap``: 1 - lambda, lambda the factor by which an exchange shrinks distances from the mean; None without a fixed
    graph. ``least``: no eigenvalue of its mixing matrix lies below it, where that is symmetric and always the same;
    else None. ``share``: of the workers that take part in a round.
    """

    L: float
    L_n: Sequence[float]
    mu: float
    whole: bool = True
    delta: float | None = 1.0
    omega: float | None = 0.0
    independent: bool = True
    size: float = 1.0
    gap: float | None = None
    least: float | None = None
    share: float = 1.0

    @property
    def workers(self) -> int:
        return len(self.L_n)

    @property
    def largest(self) -> float:
        """max_n L_n."""
        return max(self.L_n)

    @property
    def rms(self) -> float:
        """sqrt(mean_n L_n^2)."""
        return math.sqrt(sum(each**2 for each in self.L_n) / self.workers)

    @property
    def contraction(self) -> float:
        """delta. Raises ValueError where C does not contract."""
        if self.delta is None:
            raise ValueError("lr=theory: the compressor does not contract; give compress=topk or the like")
        return self.delta

    @property
    def variance(self) -> float:
        """omega. Raises ValueError where C is biased."""
        if self.omega is None:
            raise ValueError("lr=theory: the compressor is biased; give compress=qsgd or the like")
        return self.omega

    @property
    def variance_of_mean(self) -> float:
        """omega / r, r of the workers that take part; omega where the workers draw alike, so that the mean of their
        messages varies as much as one. Raises ValueError where C is biased."""
        return self.variance / (self.share * self.workers) if self.independent else self.variance

    @property
    def variance_of_sample(self) -> float:
        """(N - r) / (r (N - 1)): at most so much is the variance of the mean of r of N vectors, drawn without
        replacement, over the mean of their squared norms."""
        return (1 - self.share) / self.share / (self.workers - 1) if self.share < 1 else 0.0

    def need_whole(self) -> None:
        """Raises ValueError where gradients are of batches."""
        if not self.whole:
            raise ValueError("lr=theory: the step is known for gradients over all samples; give batch_size=null")
