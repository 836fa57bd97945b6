"""No proximal term."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.problems.prox.base import Prox


@dataclass
class NoProx(Prox):
    """h = 0; ``prox`` returns z itself, not a copy."""

    def value(self, x: Tensor) -> float:
        return 0.0

    def prox(self, z: Tensor, step: float) -> Tensor:
        return z
