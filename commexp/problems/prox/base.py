"""The convex h of  min F(x) + h(x), known by its value and its proximal operator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Prox(ABC):
    """A dataclass; its fields are h's own. Source: Parikh and Boyd, Proximal Algorithms, 2014, section 6."""

    @abstractmethod
    def value(self, x: Tensor) -> float:
        """h(x) of x [J], summed in float64; of the indicator of a set 0.0 inside, within a relative 1e-6, and inf
        outside."""

    @abstractmethod
    def prox(self, z: Tensor, step: float) -> Tensor:
        """Row by row argmin_u h(u) + ||u - z||^2 / (2 step), [W, J] -> [W, J], for step >= 0; z is left as it is.

        A row's bits do not depend on the other rows, nor on how many there are: whatever adds up entries of a row is
        built of elementwise sums, since torch's own reductions choose their order by the whole tensor's shape. NaN
        stays NaN.
        """


def row_sums(a: Tensor) -> Tensor:
    """[..., n] -> [..., 1], by pairs."""
    while (n := a.shape[-1]) > 1:
        half = n // 2
        paired = a[..., :half] + a[..., half : 2 * half]
        a = torch.cat([paired, a[..., 2 * half :]], -1) if n % 2 else paired
    return a


def running_row_sums(a: Tensor) -> Tensor:
    """[..., n] -> [..., n], by doubling: log2 n passes."""
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
