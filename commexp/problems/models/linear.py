"""Linear models on feature vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from commexp.problems.base import Problem, ProblemContext
from commexp.problems.data import Data
from commexp.problems.least_squares import LeastSquares
from commexp.problems.logistic import Logistic
from commexp.problems.models.base import Model, refuse_mini_batches


@dataclass
class LinearRegression(Model):
    """Least squares, full-batch gradients from Gram matrices, optimum in closed form."""

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        refuse_mini_batches(context)
        if not (data.vectors and data.train_y.is_floating_point()):
            raise ValueError("model=linear_regression: needs feature vectors and real targets; give dataset=linreg")
        return LeastSquares(data, context)


@dataclass
class LogisticRegression(Model):
    """Binary logistic regression on feature vectors, dense or sparse, labels -1 and 1 or two classes. ``start``: the
    first x, zero if null. ``l2``, ``nonconvex``: weights of the smooth regularisers, see Logistic."""

    full_batch: ClassVar[bool] = True

    start: list[float] | None = None
    l2: float = 0.0
    nonconvex: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l2", "nonconvex"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative; give 0 or more")

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        two = data.classes == 2 or (data.classes is None and bool((data.train_y.abs() == 1).all()))
        if data.third_class and data.vectors:
            wrong = f"{data.third_class} is the third, and model=logistic_regression tells two apart"
            raise ValueError(f"{wrong}; give a file with two labels, or model=mlp")
        if not (data.vectors and two):
            raise ValueError("model=logistic_regression: needs feature vectors and two classes; give dataset=a9a")
        return Logistic(data, context, self.start, self.l2, self.nonconvex)
