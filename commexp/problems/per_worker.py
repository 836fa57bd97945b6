"""A problem that computes for one of several workers at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.problems.base import Problem, Ready


class PerWorkerProblem(Problem):
    """``problems``: one per worker, each with W = 1. Batches and gradients are those of the worker that
    ``select_worker`` selected last; ``ids`` holds its number, for error messages. Metrics concern all workers and do
    not depend on the selection. ``local_sizes``: the number of samples of each worker."""

    def __init__(self, problems: Sequence[Problem], local_sizes: Sequence[int]) -> None:
        self.problems, self.local_sizes, self.ids = problems, local_sizes, [0]
        first = self.own = problems[0]
        self.dim, self.shapes, self.penalised = first.dim, first.shapes, first.penalised
        self.samples, self.samples_per_step, self.way = first.samples, first.samples_per_step, first.way
        self.tokens_per_sample, self.tells_gradient = first.tokens_per_sample, first.tells_gradient

    @classmethod
    def of(cls, problem: Problem) -> PerWorkerProblem:
        """A problem of W workers as W problems of one. Raises ValueError where the problem cannot be taken apart."""
        return cls([problem.for_workers([w]) for w in range(len(problem.local_sizes))], problem.local_sizes)

    def select_worker(self, worker: int) -> None:
        self.own, self.ids[0] = self.problems[worker], worker

    def init(self, generator: torch.Generator) -> Tensor:
        return self.own.init(generator)

    def batch(self, step: int) -> object:
        return self.own.batch(step)

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        return self.own.loss_and_grad(x, batch, ready)

    def fresh(self, step: int, size: int) -> object:
        return self.own.fresh(step, size)

    def fresh_samples(self, size: int) -> float:
        return self.own.fresh_samples(size)

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.own.local_gradient(x)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self.own.common_gradient(x, step)

    def common_samples(self) -> float:
        return self.own.common_samples()

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        return self.problems[0].training_gradient(x)

    def training_loss(self, x: Tensor) -> float:
        return self.problems[0].training_loss(x)

    def stationarity(self, x: Tensor) -> float:
        return self.problems[0].stationarity(x)

    def evaluate(self, x: Tensor) -> dict[str, float]:
        return self.problems[0].evaluate(x)

    def classes_per_worker(self) -> Tensor | None:
        return self.problems[0].classes_per_worker()

    def optimum(self) -> Tensor | None:
        return self.problems[0].optimum()
