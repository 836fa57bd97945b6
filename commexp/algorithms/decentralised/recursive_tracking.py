"""Recursive estimates of the gradient: SARAH between large batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.tracking import GradientTracking


@dataclass
class RecursiveTracking(GradientTracking):
    """In every ``q``-th round, beginning with the first, v_n is the gradient of a large batch. In between it is updated
    with b = ``batch_size`` samples xi, the same at both points:

        v_n <- v_n + mean_b [ grad f_n(x_n; xi) - grad f_n(x_n of the previous round; xi) ]

    Raises ValueError if q is less than 1.
    """

    worker_state = "before"

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.before = self.x

    @property
    @abstractmethod
    def period(self) -> int:
        """q."""

    @abstractmethod
    def large(self, t: int) -> Tensor:
        """The gradients of the large batches at x, [W, J]."""

    @abstractmethod
    def large_size(self) -> float:
        """How many samples of a worker a large batch holds."""

    def estimate(self, t: int) -> Tensor:
        if t % self.period == 0:
            v = self.large(t)
        else:
            batch = self.context.problem.batch(t)
            v = self.v + (self.at(self.x, batch) - self.at(self.before, batch))
        self.before = self.x
        return v

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        large = self.large_size() / self.context.problem.samples_per_step
        return [1.0 if t % self.period else large for t in range(len(lengths))]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        return [2.0 if t % self.period else n for t, n in enumerate(self.batches_of(lengths))]
