"""Linear least squares from Gram matrices."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from commexp.problems.base import Problem, ProblemContext, Ready, rows_of
from commexp.problems.data import Data
from commexp.problems.smoothness import Smoothness, as_float64, largest_eigenvalue


class LeastSquares(Problem):
    """f_n(x) = (1/D_n) ||X_n x - y_n||^2, its gradient (2/D_n) (X_n^T X_n x - X_n^T y_n) on the full batch.

    X_n^T X_n, X_n^T y_n and y_n^T y_n are computed once: a round costs N J^2 operations and does not read the samples.
    The optimum solves the normal equations of F = mean_n f_n (pooled least squares for equal shares).
    The common batch holds all samples. Metrics: train_loss = F(x), objective if there is a proximal term,
    dist_to_opt = ||x - x*||, excess_loss = F(x) - F(x*) as (x - x*)^T G (x - x*) / 2, G the mean of the workers'
    (2/D_n) X_n^T X_n; this form avoids cancellation, so small values are accurate.
    """

    tells_gradient = True
    whole_batches = True

    def __init__(self, data: Data, context: ProblemContext) -> None:
        shards, own = context.shards, {n: w for w, n in enumerate(context.worker_ids)}
        self.dim = dim = data.train_x.shape[1]
        empty = data.train_x.new_empty
        here = empty(len(own), dim, dim), empty(len(own), dim), empty(len(own))
        spare = empty(dim, dim)
        sums = [torch.zeros(each.shape[1:], dtype=torch.float64) for each in here]
        for n, rows in enumerate(shards):  # matrices of other processes' workers are needed for the mean only
            x, y = data.train_x[rows], data.train_y[rows].to(data.train_x.dtype)
            gram = torch.matmul(x.mT, x, out=here[0][own[n]] if n in own else spare).mul_(2 / len(rows))
            cross, square = x.mT @ y * (2 / len(rows)), y @ y / len(rows)
            for total, one in zip(sums, (gram, cross, square), strict=True):
                total.add_(one, alpha=1.0 if context.weights is None else context.weights[n] * len(shards))
            if n in own:
                here[1][own[n]], here[2][own[n]] = cross, square
        gram, self.cross, self.square = (each.to(context.device) for each in here)
        self.gram: Tensor | list[Tensor] = gram  # [W, J, J]
        self.mean_gram, self.mean_cross, self.mean_square = (
            (total / len(shards)).to(context.device, gram.dtype) for total in sums
        )
        self.deterministic = context.deterministic
        self.shapes = {"x": (self.dim,)}
        self.samples = sum(len(rows) for rows in shards)
        self.samples_per_step = self.samples / len(shards)
        self.local_sizes = [len(rows) for rows in context.own]
        self.solution: Tensor = torch.linalg.solve(self.mean_gram, self.mean_cross)

    @property
    def gradient_flops(self) -> float:
        """2 J^2, of the product of a worker's Gram matrix and x."""
        return 2.0 * self.dim**2

    def smoothness(self) -> Smoothness:
        """The extreme eigenvalues of the Gram matrices, which are the Hessians."""
        mean = as_float64(self.mean_gram)
        own = np.array([largest_eigenvalue(as_float64(gram)) for gram in self.gram])
        return Smoothness(largest_eigenvalue(mean), own, max(0.0, float(np.linalg.eigvalsh(mean)[0])))

    def for_workers(self, rows: Sequence[int]) -> LeastSquares:
        assert isinstance(self.gram, Tensor)
        some, here = copy.copy(self), list(rows)
        some.gram, some.cross, some.square = rows_of(self.gram, rows), self.cross[here], self.square[here]
        some.local_sizes = [self.local_sizes[row] for row in rows]
        return some

    def init(self, generator: torch.Generator) -> Tensor:
        """Uniform in [-1/sqrt(J), 1/sqrt(J)], as torch.nn.Linear."""
        x = torch.empty(self.dim, dtype=self.mean_gram.dtype)
        bound = 1 / math.sqrt(self.dim)
        return x.uniform_(-bound, bound, generator=generator).to(self.mean_gram.device)

    def batch(self, step: int) -> None:
        return None

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        shared = x.stride(0) == 0  # one x for all workers: a matrix-vector product suffices
        if self.deterministic or isinstance(self.gram, list):
            gx = torch.stack([gram @ row for gram, row in zip(self.gram, x, strict=True)])
        else:
            gx = self.gram @ x[0] if shared else torch.bmm(self.gram, x[..., None]).squeeze(-1)
        losses = self.square + (x * (gx / 2 - self.cross)).sum(1)
        return losses, gx - self.cross

    def fresh(self, step: int, size: int) -> None:
        return None

    def fresh_samples(self, size: int) -> float:
        return self.samples_per_step

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss_and_grad(x, None)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        each = [self.training_gradient(row) for row in x]
        return torch.stack([x.new_tensor(loss) for loss, _ in each]), torch.stack([grad for _, grad in each])

    def common_samples(self) -> float:
        return float(self.samples)

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        gx = self.mean_gram @ x
        return float(self.mean_square + x @ (gx / 2 - self.mean_cross)), gx - self.mean_cross

    def evaluate(self, x: Tensor) -> dict[str, float]:
        loss, _ = self.training_gradient(x)
        gap = x - self.solution
        excess = float(gap @ (self.mean_gram @ gap) / 2)
        distance = float(torch.linalg.vector_norm(gap))
        return {"train_loss": loss, **self.objective(loss, x), "excess_loss": excess, "dist_to_opt": distance}

    def optimum(self) -> Tensor:
        return self.solution
