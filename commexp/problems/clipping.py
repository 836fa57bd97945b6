"""Gradients of a bounded norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.problems.base import Problem, Ready
from commexp.problems.nonfinite import NonFiniteGuard


class ClippedGradients(NonFiniteGuard):
    """A guard that also clips the gradients of batches: each worker's own, of every batch, at every point,

        g_n <- g_n min(1, clip / ||g_n||)

    after the check for NaN and Inf and before anything uses it: optimiser, compressor, tracking. In coded methods g_n
    is the gradient of a subset. All other fields: see NonFiniteGuard.

    ``local_gradient`` and ``common_gradient``, over all samples or for a measurement, are not clipped. A method that
    takes differences of gradients takes them of clipped ones, so what its theory says of the differences holds only
    where no gradient is longer than ``clip``:

        svrg                  grad f_b(x) and grad f_b(z) are clipped, grad f(z) is not: the sum is biased, and its norm
                              may exceed ``clip``
        SARAH, STORM          both gradients on the batch are clipped: v_n may exceed ``clip``
        gradient tracking     y_n tracks the mean of the clipped gradients

    The ascent gradient of sharpness-aware minimisation is clipped too, which changes nothing: its direction alone
    counts.

    Source: Pascanu, Mikolov and Bengio, arXiv 1211.5063, algorithm 1.
    """

    def __init__(
        self, problem: Problem, worker_ids: Sequence[int], policy: str, owner: str = "worker", *, clip: float
    ) -> None:
        super().__init__(problem, worker_ids, policy, owner)
        self.clip = clip

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        """No entry is final before the norm is known, so ``ready`` is not passed on."""
        losses, grad = super().loss_and_grad(x, batch)
        norms = torch.stack([torch.linalg.vector_norm(row) for row in grad]).double()  # row by row: bits as with W = 1
        if not bool((norms > self.clip).any()):
            return losses, grad
        for n in norms.isinf().nonzero()[:, 0].tolist():  # float32 cannot hold the sum of its squares
            norms[n] = torch.linalg.vector_norm(grad[n], dtype=torch.float64)
        return losses, grad * (self.clip / norms).clamp(max=1.0).to(grad.dtype)[:, None]
