"""The local solvers of asynchronous methods: SGD and SVRG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from commexp.problems import Problem

SOLVERS = ("sgd", "svrg")


def check_solver(solver: str) -> None:
    """Raises ValueError for an unknown solver."""
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver}: unknown; give sgd or svrg")


def run_local_solver(solver: str, problem: Problem, z: Tensor, first: int, count: int, rate: float) -> Tensor:
    """Starts at x = z [J] and takes the steps s = first, ..., first + count - 1 on the only worker of ``problem``; b is
    its batch of step s:

        sgd     x <- x - rate grad f_b(x)
        svrg    x <- x - rate (grad f_b(x) - grad f_b(z) + grad f(z))         f: the mean over all its samples

    Returns x [J]. Source of svrg: Johnson and Zhang, Accelerating stochastic gradient descent, NIPS 2013; z is the
    snapshot.
    """
    x, anchor = z[None].clone(), z[None]
    full = problem.local_gradient(anchor)[1].clone() if solver == "svrg" else None
    for s in range(first, first + count):
        batch = problem.batch(s)
        step = problem.loss_and_grad(x, batch)[1].clone()  # the next call may overwrite it
        if full is not None:
            step += full - problem.loss_and_grad(anchor, batch)[1]
        x = x - rate * step
    return x[0]
