"""Norms and their sums: regularisers that shrink entries or groups of entries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from commexp.problems.prox.base import Prox, check_weight, row_sums


@dataclass
class L1(Prox):
    """h(x) = ``weight`` ||x||_1. Source: Tibshirani, J. R. Stat. Soc. B 58 (1996)."""

    weight: float = 1e-4

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)

    def value(self, x: Tensor) -> float:
        return self.weight * float(x.double().abs().sum())

    def prox(self, z: Tensor, step: float) -> Tensor:
        return soft_threshold(z, step * self.weight)


@dataclass
class L2(Prox):
    """h(x) = ``weight`` / 2 ||x||^2."""

    weight: float = 1e-4

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)

    def value(self, x: Tensor) -> float:
        return self.weight / 2 * float(x.double().square().sum())

    def prox(self, z: Tensor, step: float) -> Tensor:
        return z / (1 + step * self.weight)


@dataclass
class ElasticNet(Prox):
    """h(x) = ``l1`` ||x||_1 + ``l2`` / 2 ||x||^2. Source: Zou and Hastie, J. R. Stat. Soc. B 67 (2005)."""

    l1: float = 1e-4
    l2: float = 1e-4

    def __post_init__(self) -> None:
        check_weight("l1", self.l1)
        check_weight("l2", self.l2)

    def value(self, x: Tensor) -> float:
        wide = x.double()
        return self.l1 * float(wide.abs().sum()) + self.l2 / 2 * float(wide.square().sum())

    def prox(self, z: Tensor, step: float) -> Tensor:
        return soft_threshold(z, step * self.l1) / (1 + step * self.l2)


@dataclass
class GroupLasso(Prox):
    """h(x) = ``weight`` sum_g sqrt(|g|) ||x_g||, where the groups g are blocks of ``size`` consecutive entries; the
    last one may be shorter. Source: Yuan and Lin, J. R. Stat. Soc. B 68 (2006).
    """

    weight: float = 1e-4
    size: int = 8

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)
        if self.size < 1:
            raise ValueError(f"size={self.size}: must not be less than 1; give the entries of a group, such as 8")

    def value(self, x: Tensor) -> float:
        norms = torch.linalg.vector_norm(self._groups(x.double()), dim=-1)
        return self.weight * float(norms @ self._roots(x.double()))

    def prox(self, z: Tensor, step: float) -> Tensor:
        """An infinite entry makes its group NaN."""
        groups = self._groups(z)
        largest = groups.abs().amax(-1, keepdim=True)  # the unit of the norms, so that no square overflows
        unit = torch.where(largest == 0, 1, largest)
        norms = row_sums((groups / unit).square()).sqrt().clamp(min=1)  # below 1 only in a group of zeros
        threshold = (step * self.weight) * self._roots(z)[:, None] / unit
        return (groups * ((norms - threshold).clamp(min=0) / norms)).flatten(-2)[..., : z.shape[-1]]

    def _groups(self, x: Tensor) -> Tensor:
        """[..., J] -> [..., groups, size], padded with zeros."""
        size = min(self.size, x.shape[-1])
        return F.pad(x, (0, -x.shape[-1] % size)).reshape(*x.shape[:-1], -1, size)

    def _roots(self, x: Tensor) -> Tensor:
        """sqrt(|g|), [groups]."""
        dim = x.shape[-1]
        roots = torch.full((math.ceil(dim / self.size),), math.sqrt(self.size), dtype=x.dtype, device=x.device)
        roots[-1] = math.sqrt((dim - 1) % self.size + 1)
        return roots


def soft_threshold(z: Tensor, threshold: float) -> Tensor:
    """sign(z) max(|z| - threshold, 0), entry by entry."""
    threshold = min(threshold, torch.finfo(z.dtype).max)
    return z - z.clamp(-threshold, threshold)
