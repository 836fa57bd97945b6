"""Binary logistic regression without an intercept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from commexp.problems.base import Problem, ProblemContext, Ready
from commexp.problems.data import Data
from commexp.problems.feeds.base import Sampler, common_rows, with_replacement
from commexp.problems.margins import Margins, make_margins
from commexp.problems.minimum import MOST, Minimum
from commexp.problems.prox import NoProx
from commexp.problems.smoothness import Smoothness, as_float64, gram_eigenvalue


class Logistic(Problem):
    """Over worker n's samples i, with labels y_i = -1 or 1,

        f_n(x) = mean_i log(1 + exp(-y_i a_i^T x)) + (l2 / 2) ||x||^2 + nonconvex sum_j x_j^2 / (1 + x_j^2)

    The last term is the usual non-convex regulariser of decentralised methods (arXiv 2110.01594, section 5).
    ``l2``, ``nonconvex``: the weights of the last two terms. Batches hold ``batch_size`` samples, or all samples of a
    worker. Features may be sparse; they are never made dense. The starting point is ``start`` [J], or zero.
    Metrics: train_loss = mean_n of the first term; objective with the other terms, if their weights are not 0;
    excess_loss = F(x) - F*, if F is strongly convex, small enough for ``Minimum``, and there is no h; with a test set
    also train_accuracy, with the weights of train_loss, test_loss and test_accuracy.
    """

    tells_gradient = True

    def __init__(
        self,
        data: Data,
        context: ProblemContext,
        start: Sequence[float] | None,
        l2: float = 0.0,
        nonconvex: float = 0.0,
    ) -> None:
        self.l2, self.nonconvex = l2, nonconvex
        self.penalised = bool(l2 or nonconvex)
        self.margins = make_margins(data.train_x, signs(data.train_y, data.classes), context)
        self.test: Margins | None = None
        if data.test_x is not None and data.test_y is not None:
            self.test = make_margins(data.test_x, signs(data.test_y, data.classes), context)
        self.has_accuracy = self.test is not None
        self.dim = data.train_x.shape[1]
        self.shapes = {"x": (self.dim,)}
        self.samples = sum(len(rows) for rows in context.shards)
        self.shards, self.local_sizes = context.shards, [len(rows) for rows in context.own]
        self.own, self.worker_ids, self.seed = context.own, context.worker_ids, context.seed
        self.sampler: Sampler | None = None
        if context.batch_size is not None:
            self.sampler = Sampler(self.own, self.worker_ids, context.batch_size, self.seed)
        self.whole_batches = self.sampler is None
        self.samples_per_step = float(context.batch_size or self.samples / len(context.shards))
        if start is not None and len(start) != self.dim:
            raise ValueError(f"model.start={list(start)}: has {len(start)} entries; give {self.dim}")
        first = torch.zeros(self.dim) if start is None else torch.tensor(list(start))
        self.start = first.to(context.device, context.dtype)
        self.shares = context.shares(len(data.train_x))
        self.counts = data.class_counts(context.shards)

    @cached_property
    def own_samples(self) -> Any:
        """All samples of the local workers, in the form of a batch."""
        return self.margins.take(self.own)

    @cached_property
    def minimum(self) -> Minimum | None:
        """Of F, computed when it is first asked for; None where that takes too long, F is not convex or has no minimum,
        or there is an h."""
        step = self.samples * self.margins.row_size**2 + self.dim**3
        if self.nonconvex or not self.l2 or step > MOST or not isinstance(self.prox, NoProx):
            return None
        try:
            return Minimum(self.margins.rows(), as_float64(self.shares), self.l2)
        except (ArithmeticError, ValueError):  # l2 is too small for the precision
            return None

    @property
    def gradient_flops(self) -> float:
        """4 for each entry of a sample's vector: its part in the margin, and in the gradient. Zeros that are not stored
        take none."""
        return 4 * self.margins.row_size * self.samples_per_step

    def smoothness(self) -> Smoothness:
        """The loss has second derivatives of at most 1/4 in the margin, so that f_n has the smoothness
        (1/4) lambda_max(mean_i a_i a_i^T) + l2 + 2 nonconvex; those of x^2 / (1 + x^2) lie between -1/2 and 2."""
        penalties = self.l2 + 2 * self.nonconvex
        whole = self.margins.rows()
        own = [self.margins.rows(samples) for samples in self.own]
        L = gram_eigenvalue(whole, as_float64(self.shares)) / 4 + penalties
        L_n = [gram_eigenvalue(rows, np.full(rows.shape[0], 1 / rows.shape[0])) / 4 + penalties for rows in own]
        return Smoothness(L, np.array(L_n), self.l2 - self.nonconvex / 2)

    def for_workers(self, rows: Sequence[int]) -> Logistic:
        some = copy.copy(self)
        some.own, some.worker_ids = [self.own[row] for row in rows], [self.worker_ids[row] for row in rows]
        some.local_sizes = [self.local_sizes[row] for row in rows]
        some.sampler = self.sampler and self.sampler.for_workers(rows)
        if "own_samples" in some.__dict__ or (self.sampler is None and len(rows) > 1):
            some.__dict__["own_samples"] = self.margins.of_workers(self.own_samples, rows)
        return some

    def init(self, generator: torch.Generator) -> Tensor:
        return self.start.clone()

    def batch(self, step: int) -> Any:
        return self.own_samples if self.sampler is None else self.margins.take(list(self.sampler.batch(step)))

    def fresh(self, step: int, size: int) -> Any:
        return self.margins.take(list(with_replacement(self.own, self.worker_ids, size, self.seed, step)))

    def loss_and_grad(self, x: Tensor, batch: Any, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        return self._regularised(*self.margins.each(batch, x), x)

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss_and_grad(x, self.own_samples)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if self.sampler is not None:
            rows = common_rows(self.shards, self.sampler.batch_size, self.seed, step)
            return self.loss_and_grad(x, self.margins.take([rows] * len(x)))
        each = [self.training_gradient(row) for row in x]
        return torch.stack([x.new_tensor(loss) for loss, _ in each]), torch.stack([grad for _, grad in each])

    def common_samples(self) -> float:
        return float(self.samples if self.sampler is None else self.sampler.batch_size)

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        _, losses, grads = self._whole(x)
        return float(losses[0]), grads[0]

    def _whole(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Over all samples at x [J]: the mean loss without penalties, F [1], and the gradient of F [1, J]."""
        loss, grad = self.margins.weighted(self.shares, x)
        return loss, *self._regularised(loss[None], grad[None], x[None])

    def _regularised(self, losses: Tensor, grads: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.l2:
            losses, grads = losses + self.l2 / 2 * x.square().sum(1), grads + self.l2 * x
        if self.nonconvex:
            below = 1 + x.square()
            losses = losses + self.nonconvex * (x.square() / below).sum(1)
            grads = grads + 2 * self.nonconvex * x / below.square()
        return losses, grads

    def classes_per_worker(self) -> Tensor | None:
        return self.counts

    def evaluate(self, x: Tensor) -> dict[str, float]:
        loss, whole, _ = self._whole(x)
        metrics = {"train_loss": float(loss), **self.objective(float(whole), x)}
        if self.minimum is not None:
            metrics["excess_loss"] = self.minimum.excess(as_float64(x))
        if self.test is None:
            return metrics
        train_accuracy = self.margins.accuracy(x, self.shares)
        test_loss, test_accuracy = self.test.score(x)
        return {**metrics, "train_accuracy": train_accuracy, "test_loss": test_loss, "test_accuracy": test_accuracy}


def signs(labels: Tensor, classes: int | None) -> Tensor:
    """Labels -1 and 1 for the logistic loss; classes 0 and 1 become -1 and 1."""
    return 2 * labels - 1 if classes == 2 else labels
