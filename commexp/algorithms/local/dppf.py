"""DPPF: distributed pull-push force."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.local.soft_consensus import SoftConsensus


@dataclass
class DPPF(SoftConsensus):
    """Soft consensus with x_C = x_A, so one exchange gives both:

        x_n <- x_n + (x_A - x_n) (alpha - lambda_t / ||x_n - x_A||)

    ``pull``: alpha in (0, 2). ``push``: lambda. The distance of the workers from x_A, the valley width, tends to
    lambda / alpha. x_A is the model. With alpha = 1 and lambda = 0 it is local SGD.

    Source: Dimlioglu and Choromanska, arXiv 2507.20424, algorithm 1.
    """

    pull: float = 0.1
    push: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.pull < 2:
            raise ValueError(f"pull={self.pull}: not stable; give a number in (0, 2) such as 0.1")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.limit = 0.0

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        self.pull_and_push(t, departed, average, average, self.pull)
        self.limit = self.push_at(t) / self.pull

    def diagnostics(self) -> dict[str, float]:
        """Adds ``valley_limit``, lambda_t / alpha: the limit of the valley width."""
        return {**super().diagnostics(), "valley_limit": self.limit}
