"""A guard that detects NaN and Inf in the gradients, in the round and on the worker where they arise."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.problems.base import Problem, Ready
from commexp.problems.wrapped import WrappedProblem

log = logging.getLogger("commexp")

POLICIES = ("stop", "skip", "zero")


class NonFiniteError(ArithmeticError):
    """A gradient is not finite. ``tensor``: the first tensor with a non-finite entry. ``kind``: NaN or Inf. ``owner``:
    what ``worker`` numbers: a worker, or a subset of the data in coded methods."""

    def __init__(self, round: int, worker: int, tensor: str, kind: str, owner: str = "worker") -> None:
        super().__init__(f"round {round}, {owner} {worker}: the gradient of {tensor} holds {kind}")
        self.round, self.worker, self.tensor, self.kind, self.owner = round, worker, tensor, kind, owner

    def text(self) -> str:
        """A serialised form, for ``read`` in another process."""
        return json.dumps([self.round, self.worker, self.tensor, self.kind, self.owner])

    @staticmethod
    def read(text: str) -> NonFiniteError:
        return NonFiniteError(*json.loads(text))


class NonFiniteGuard(WrappedProblem):
    """Wraps ``problem`` and checks every worker's gradient before it is used.

    ``policy``: with stop, ``fault`` records the first non-finite gradient, and the caller must discard the round. With
    skip the non-finite gradient becomes zero for this step, with zero only its non-finite entries; both log a warning
    per worker and go on. ``worker_ids``: the global number of each row of the gradients; ``owner`` names what it
    numbers. ``count``: non-finite gradients so far, one per worker and step. ``round``: the current round, counted from
    1.
    """

    def __init__(self, problem: Problem, worker_ids: Sequence[int], policy: str, owner: str = "worker") -> None:
        super().__init__(problem)
        self.worker_ids, self.policy, self.owner = worker_ids, policy, owner
        self.count = 0
        self.fault: NonFiniteError | None = None
        self.round = 1

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._watched(*self.problem.local_gradient(x))

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self._watched(*self.problem.common_gradient(x, step))

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        """With skip and zero no entry may be used before the whole gradient is checked, so ``ready`` is not passed
        on."""
        return self._watched(*self.problem.loss_and_grad(x, batch, ready if self.policy == "stop" else None))

    def _watched(self, losses: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Costs one sum and one synchronisation with the device if all gradients are finite."""
        return losses, grad if math.isfinite(grad.sum().item()) else self._treated(grad)

    def _treated(self, grad: Tensor) -> Tensor:
        """Applies the policy to ``grad`` [W, J]; returns it unchanged if only the sum overflowed."""
        bad = ~grad.isfinite()
        rows = [w for w, any_bad in enumerate(bad.any(1).tolist()) if any_bad]
        if self.fault is None:  # after a fault the round is discarded
            self.count += len(rows)
        for w in rows:
            error = NonFiniteError(self.round, self.worker_ids[w], *self._first(grad[w]), self.owner)
            if self.policy != "zero":
                bad[w] = True
            if self.policy == "stop":
                self.fault = self.fault or error
                continue
            log.warning("%s; %s of its %s entries become zero", error, int(bad[w].sum()), self.dim)
        return grad.masked_fill(bad, 0.0) if rows else grad

    def _first(self, gradient: Tensor) -> tuple[str, str]:
        """The first tensor with a non-finite entry in one worker's gradient [J], and NaN or Inf."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        pieces = zip(self.shapes, torch.split(gradient, sizes), strict=True)
        name, piece = next((name, piece) for name, piece in pieces if not piece.isfinite().all())
        return name, "NaN" if piece.isnan().any() else "Inf"
