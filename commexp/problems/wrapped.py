"""A problem around another one, which it changes in part."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.problems.base import Problem


class WrappedProblem(Problem):
    """All but the workers' gradients are those of ``problem``."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.prox, self.penalised, self.tells_gradient = problem.prox, problem.penalised, problem.tells_gradient
        self.dim, self.shapes = problem.dim, problem.shapes
        self.samples, self.samples_per_step = problem.samples, problem.samples_per_step

    def init(self, generator: torch.Generator) -> Tensor:
        return self.problem.init(generator)

    def batch(self, step: int) -> object:
        return self.problem.batch(step)

    def fresh(self, step: int, size: int) -> object:
        return self.problem.fresh(step, size)

    def fresh_samples(self, size: int) -> float:
        return self.problem.fresh_samples(size)

    def common_samples(self) -> float:
        return self.problem.common_samples()

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        return self.problem.training_gradient(x)

    def training_loss(self, x: Tensor) -> float:
        return self.problem.training_loss(x)

    def evaluate(self, x: Tensor) -> dict[str, float]:
        return self.problem.evaluate(x)

    def optimum(self) -> Tensor | None:
        return self.problem.optimum()
