"""Linear models on feature vectors."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.problems.base import Problem, Setting
from commexp.problems.data import Data
from commexp.problems.least_squares import LeastSquares
from commexp.problems.logistic import Logistic
from commexp.problems.models.base import Model, refuse_mini_batches


@dataclass
class LinearRegression(Model):
    """Least squares, full-batch gradients from Gram matrices, optimum in closed form."""

    def problem(self, data: Data, setting: Setting) -> Problem:
        refuse_mini_batches(setting)
        if data.train_x.ndim != 2 or not data.train_y.is_floating_point():
            raise ValueError("model=linear_regression: needs feature vectors and real targets; give dataset=linreg")
        return LeastSquares(data, setting)


@dataclass
class LogisticRegression(Model):
    """Binary logistic regression, labels -1 and 1, full-batch gradients; ``start``: the first x, zero if null."""

    start: list[float] | None = None

    def problem(self, data: Data, setting: Setting) -> Problem:
        refuse_mini_batches(setting)
        if data.train_x.ndim != 2 or not bool((data.train_y.abs() == 1).all()):
            raise ValueError("model=logistic_regression: needs feature vectors and labels -1 and 1; give dataset=toy")
        return Logistic(data, setting, self.start)
