"""The convex h of  min F(x) + h(x), given by its value and its proximal operator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Prox(ABC):
    """A dataclass whose fields are the parameters of h. Source: Parikh and Boyd, Proximal Algorithms, 2014, section
    6."""

    @abstractmethod
    def value(self, x: Tensor) -> float:
        """h(x) for x [J], summed in float64. For the indicator of a set: 0.0 inside, with a relative tolerance of 1e-6,
        and inf outside."""

    @abstractmethod
    def prox(self, z: Tensor, step: float) -> Tensor:
        """argmin_u h(u) + ||u - z||^2 / (2 step) for every row, [W, J] -> [W, J], for step >= 0; does not change z.

        The bits of a row do not depend on the other rows or on their number. Sums over a row therefore use elementwise
        additions, because the order of torch's reductions depends on the shape of the whole tensor. NaN stays NaN.
        """


def row_sums(a: Tensor) -> Tensor:
    """The sum of each row, [..., n] -> [..., 1], by pairwise additions."""
    while (n := a.shape[-1]) > 1:
        half = n // 2
        paired = a[..., :half] + a[..., half : 2 * half]
        a = torch.cat([paired, a[..., 2 * half :]], -1) if n % 2 else paired
    return a


def running_row_sums(a: Tensor) -> Tensor:
    """The cumulative sum of each row, [..., n] -> [..., n], in log2 n passes."""
    a = a.clone()
    reach = 1
    while reach < a.shape[-1]:
        a[..., reach:] = a[..., reach:] + a[..., :-reach]
        reach *= 2
    return a


def check_weight(name: str, weight: float) -> None:
    """Raises ValueError for a weight that is negative or not finite."""
    if weight < 0:
        raise ValueError(f"{name}={weight}: must not be negative; give 0 or more")
    if not math.isfinite(weight):
        raise ValueError(f"{name}={weight}: must be finite; give 0 or more, such as 1e-4")
