"""DEEPSTORM: proximal gradient tracking with recursive momentum, in a single loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.tracking import GradientTracking


@dataclass
class DeepStorm(GradientTracking):
    """Version 1, with the same b = ``batch_size`` samples xi at both points:

        v_n <- grad f_n(x_n; xi) + (1 - beta) (v_n - grad f_n(x_n of the previous round; xi))

    In the first round v_n is the gradient of ``initial_batch`` fresh samples. ``beta`` = 1 gives ProxGT-SA, 0 SARAH
    without restarts. There are no large batches. For the rest see GradientTracking.
    Source: Mancino-Ball, Miao, Xu and Chen, arXiv 2211.11954, algorithm 1 (v1).
    Raises ValueError if beta is not in [0, 1] or initial_batch below 1.
    """

    beta: float = 0.01
    initial_batch: int = 512
    worker_state = "before"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta={self.beta}: out of range; give the weight of the new gradient in [0, 1]")
        if self.initial_batch < 1:
            raise ValueError(f"initial_batch={self.initial_batch}: must not be less than 1; give samples")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.before = self.x

    def estimate(self, t: int) -> Tensor:
        problem = self.context.problem
        if t == 0:
            v = self.at(self.x, problem.fresh(0, self.initial_batch))
        else:
            batch = problem.batch(t)
            v = self.at(self.x, batch) + (1 - self.beta) * (self.v - self.at(self.before, batch))
        self.before = self.x
        return v

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        problem = self.context.problem
        first = problem.fresh_samples(self.initial_batch) / problem.samples_per_step
        return [first, *map(float, lengths[1:])]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        return [self.batches_of(lengths)[0], *(2.0 * n for n in lengths[1:])]
