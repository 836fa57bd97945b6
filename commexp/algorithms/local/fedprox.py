"""FedProx: local SGD with a proximal term in the local objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from commexp.algorithms.local.localsgd import LocalSGD

if TYPE_CHECKING:
    from commexp.problems.base import Ready


@dataclass
class FedProx(LocalSGD):
    """Local SGD whose workers minimise f_n(x_n) + (mu/2) ||x_n - x||^2, x the model of the last exchange: a local step
    follows

        grad f_n(x_n) + mu (x_n - x)

    ``mu``: at least 0; with 0 it is local SGD. The term pulls a worker back to x, so that it drifts less towards the
    minimiser of its own data, and more slowly towards that of F.

    Source: Li et al., arXiv 1812.06127, algorithm 2, with a fixed number of local steps as the inexact solver.
    Raises ValueError for values out of range.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mu >= 0:
            raise ValueError(f"mu={self.mu}: must not be negative; the paper tries 0.001 to 1")

    def gradient(self, x: Tensor, step: int, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        losses, gradient = super().gradient(x, step, ready)
        return losses, gradient.add_(x - self.pulled_average, alpha=self.mu)
