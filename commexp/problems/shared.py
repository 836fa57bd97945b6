"""Gradients that several workers, or several processes, share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from commexp.problems.base import Problem, Ready
from commexp.problems.wrapped import WrappedProblem

#: rows of the members here, [W, ...] each -> the means over groups of members, [L, ...] each
Mean = Callable[..., list[Tensor]]


class SharedGradients(WrappedProblem):
    """Wraps ``problem``, whose W rows are members of L groups: a group has one x, and its gradient is the mean of its
    members' gradients at that x, each on its own batch. ``expanded``: from rows of groups, [L, J], to rows of members,
    [W, J]; ``mean``: back. ``parts``: the members are processes that compute the gradients of parts of one worker's
    batch, see GradientOptions; then each has the whole of a full gradient. All processes that share a group call every
    gradient together."""

    def __init__(self, problem: Problem, mean: Mean, expanded: Callable[[Tensor], Tensor], parts: bool = False) -> None:
        super().__init__(problem)
        self.mean, self.expanded, self.parts = mean, expanded, parts

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        """No entry is final before all members have theirs, so ``ready`` is not passed on."""
        return self._shared(*self.problem.loss_and_grad(self.expanded(x), batch))

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.parts:
            return self.problem.local_gradient(x)
        return self._shared(*self.problem.local_gradient(self.expanded(x)))

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self._shared(*self.problem.common_gradient(self.expanded(x), step))

    def _shared(self, losses: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        gradients, losses = self.mean(gradients, losses)
        return losses, gradients
