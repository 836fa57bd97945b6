"""What a worker does on its own data before it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from commexp.problems import Problem

SOLVERS = ("sgd", "svrg")


def check_solver(solver: str) -> None:
    """Raises ValueError for one that is not known."""
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver}: unknown; give sgd or svrg")


def run_local_solver(solver: str, problem: Problem, z: Tensor, first: int, count: int, rate: float) -> Tensor:
    """z [J] after steps s = first, ..., first + count - 1 on the one worker of ``problem``, b its batch of step s:

        sgd     x <- x - rate grad f_b(x)
        svrg    x <- x - rate (grad f_b(x) - grad f_b(z) + grad f(z))         f: over all of its samples

    Source of svrg: Johnson and Zhang, Accelerating stochastic gradient descent, NIPS 2013, with z as the snapshot.
    """
    x, anchor = z[None].clone(), z[None]
    full = problem.local_gradient(anchor)[1].clone() if solver == "svrg" else None
    for s in range(first, first + count):
        batch = problem.batch(s)
        step = problem.loss_and_grad(x, batch)[1].clone()  # the next call may write over it
        if full is not None:
            step += full - problem.loss_and_grad(anchor, batch)[1]
        x = x - rate * step
    return x[0]
