"""A problem of those workers alone that take part in a round."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from commexp.problems.base import Problem, Ready
from commexp.problems.wrapped import WrappedProblem


class SomeWorkers(WrappedProblem):
    """Wraps ``problem``. Batches and gradients are those of the workers that ``select`` selected last, W rows, and no
    others are computed; at first of all. Metrics concern all workers and do not depend on the selection.
    ``worker_ids``: the numbers of all workers here; ``ids``: of those selected, a list that changes in place. Raises
    ValueError where the problem cannot be taken apart."""

    def __init__(self, problem: Problem, worker_ids: Sequence[int]) -> None:
        super().__init__(problem)
        problem.for_workers([0])
        self.whole, self.worker_ids, self.ids = problem, list(worker_ids), list(worker_ids)

    def select(self, rows: Sequence[int]) -> None:
        """``rows``: places in ``worker_ids``, ascending."""
        self.ids[:] = [self.worker_ids[row] for row in rows]
        self.problem = self.whole if len(rows) == len(self.worker_ids) else self.whole.for_workers(rows)

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        return self.problem.loss_and_grad(x, batch, ready)

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.problem.local_gradient(x)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self.problem.common_gradient(x, step)
