"""The least value of the l2-regularised logistic loss, by Newton's method in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST = 10**10  # multiplications of a Newton step: of larger problems nobody waits for the minimum
STEPS, CLOSE, WHOLE = 100, 1e-12, 2
NEAR = 1e-4  # differences of margins below which a series is more accurate than the formula


class Minimum:
    """Of F(x) = sum_i s_i log(1 + exp(-z_i)) + (l2 / 2) ||x||^2 with the margins z = A x, strongly convex for l2 > 0.

    ``signed``: A [m, J], dense or of scipy; ``shares``: s [m]; both float64. ``point``: the minimiser x* [J].
    A step is x <- x - t H^-1 g with gradient g and Hessian H. As long as g^T H^-1 g, about twice F(x) - F*, is more
    than CLOSE, t is halved from 1 on until F falls by 1e-4 t g^T H^-1 g (Boyd and Vandenberghe, Convex Optimization,
    section 9.5); then WHOLE steps with t = 1, each of which doubles the digits, come to the rounding errors. Raises
    ArithmeticError where that takes more than STEPS, or l2 is too small for the precision.
    """

    def __init__(self, signed: Any, shares: np.ndarray, l2: float) -> None:
        self.signed, self.shares, self.l2 = signed, shares, l2
        self.point, whole = np.zeros(signed.shape[1]), 0
        for _ in range(STEPS):
            way, decrement = self._newton(self.point)
            close = decrement <= CLOSE
            self.point = self.point - (1.0 if close else self._size(way, decrement)) * way
            whole += close
            if whole == WHOLE:
                break
        else:
            raise ArithmeticError(f"no minimum within {STEPS} steps")
        self.margins = signed @ self.point

    def _size(self, way: np.ndarray, decrement: float) -> float:
        """t, see above."""
        before = self.value(self.point)
        for size in 0.5 ** np.arange(30):
            if self.value(self.point - size * way) <= before - 1e-4 * size * decrement:
                return float(size)
        raise ArithmeticError("no step lowers F")

    def value(self, x: np.ndarray) -> float:
        """F(x)."""
        return float(self.shares @ np.logaddexp(0, -(self.signed @ x)) + self.l2 / 2 * (x @ x))

    def _newton(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        """H^-1 g and g^T H^-1 g at x."""
        from scipy.linalg import cho_factor, cho_solve

        wrong = _wrong(self.signed @ x)
        gradient = self.l2 * x - self.signed.T @ (self.shares * wrong)
        curved = (self.shares * wrong * (1 - wrong))[:, None]
        dense = isinstance(self.signed, np.ndarray)
        hessian = self.signed.T @ (self.signed * curved if dense else self.signed.multiply(curved).tocsr())
        hessian = (hessian if dense else hessian.toarray()) + self.l2 * np.eye(len(x))
        way = cho_solve(cho_factor(hessian), gradient)
        return way, float(gradient @ way)

    def excess(self, x: np.ndarray) -> float:
        """F(x) - F(x*), as (l2 / 2) ||x - x*||^2 plus the sum of s_i D_i, with

            D = l(z* + d) - l(z*) - l'(z*) d = log(1 + p (exp(-d) - 1)) + p d,    l(z) = log(1 + exp(-z)),

        d = z - z* and p = 1 / (1 + exp(z*)), which needs no difference of almost equal losses: the gradient of F at x*
        is zero. For |d| below NEAR, D = p (1 - p) d^2 / 2 (1 - (1 - 2 p) d / 3) up to d^2 / 12 of it."""
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged run ends in infinity and NaN
            z, p = self.signed @ x, _wrong(self.margins)
            d, apart = z - self.margins, x - self.point
            far = np.logaddexp(0, -z) - np.logaddexp(0, -self.margins) + p * d
            between = np.log1p(p * np.expm1(-np.clip(d, -1, 1))) + p * d
            near = p * (1 - p) * d**2 / 2 * (1 - (1 - 2 * p) * d / 3)
            divergence = np.where(abs(d) > 1, far, np.where(abs(d) > NEAR, between, near))
            return float(self.shares @ divergence + self.l2 / 2 * (apart @ apart))


def _wrong(margins: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(z)) of margins z."""
    probabilities: np.ndarray = np.exp(-np.logaddexp(0, margins))
    return probabilities
