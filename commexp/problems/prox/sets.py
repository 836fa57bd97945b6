"""Indicators of convex sets: 0 inside, inf outside. Their proximal operator is the projection, for every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.problems.prox.base import Prox, row_sums, running_row_sums

SLACK = 1e-6


@dataclass
class L1Ball(Prox):
    """h = 0 where ||x||_1 <= ``radius``. Source: Duchi et al., ICML 2008, figure 1."""

    radius: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius={self.radius}: must be positive and finite; 10 keeps few entries")

    def value(self, x: Tensor) -> float:
        return 0.0 if float(x.double().abs().sum()) <= self.radius * (1 + SLACK) else math.inf

    def prox(self, z: Tensor, step: float) -> Tensor:
        """max(|z| - theta, 0) with the signs of z, where theta = max_k (sum of the k largest |z_j| - radius) / k. An
        infinite entry makes its row NaN.

        The computation subtracts ``base``, a lower bound of theta, so that large entries do not overflow and a small
        radius is not lost to rounding. A Newton step then corrects the rounding error of theta.
        """
        size, r = z.abs(), min(self.radius, torch.finfo(z.dtype).max)
        base = (size.amax(-1, keepdim=True) - r).clamp(min=0)
        above = (size - base).clamp(min=-r)
        sums = running_row_sums(above.sort(dim=-1, descending=True).values)
        counts = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
        theta = torch.maximum(((sums - r) / counts).amax(-1, keepdim=True), -base)
        kept = (above - theta).clamp(min=0)
        count = (kept > 0).sum(-1, keepdim=True).clamp(min=1)
        kept = torch.where(kept > 0, (kept - (row_sums(kept) - r) / count).clamp(min=0), kept)
        return torch.where(row_sums(size) <= r, z, kept.copysign(z))


@dataclass
class Box(Prox):
    """h = 0 where ``low`` <= x_j <= ``high`` for all j; a bound may be infinite."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low={self.low}: must not be above high={self.high}; give low=-1 high=1, say")

    def value(self, x: Tensor) -> float:
        wide = x.double()
        low, high = self.low - SLACK * abs(self.low), self.high + SLACK * abs(self.high)
        return 0.0 if bool(((wide >= low) & (wide <= high)).all()) else math.inf

    def prox(self, z: Tensor, step: float) -> Tensor:
        return z.clamp(self.low, self.high)
