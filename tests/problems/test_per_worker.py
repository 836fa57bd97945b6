"""The problems of single workers out of one of many: the same numbers, and memory for what a worker holds alone."""

from __future__ import annotations

import gc
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from commexp.problems import Data, GradientOptions, PerWorkerProblem, Problem, ProblemContext, build_problem
from commexp.problems.datasets.breast_cancer import BreastCancer
from commexp.problems.datasets.digits import Digits
from commexp.problems.datasets.linreg import LinReg
from commexp.problems.datasets.partition import Iid
from commexp.problems.models.linear import LinearRegression, LogisticRegression
from commexp.problems.models.matrix_factorisation import MatrixFactorisation
from commexp.problems.models.mlp import MLP
from commexp.problems.ratings.partition import ByUser
from commexp.problems.ratings.ratings import LowRank
from commexp.seeding import generator

KINDS: dict[str, tuple[Any, Any, Any, int | None]] = {
    "least squares": (LinReg(dim=64, samples=10), Iid(), LinearRegression(), None),
    "logistic": (BreastCancer(), Iid(), LogisticRegression(), None),
    "logistic in batches": (BreastCancer(), Iid(), LogisticRegression(), 8),
    "classification": (Digits(), Iid(), MLP(hidden=[4]), 8),
    "item factors": (LowRank(users=40, items=30), ByUser(), MatrixFactorisation(rank=2), 4),
    "all factors": (LowRank(users=40, items=30), Iid(), MatrixFactorisation(rank=2, travels="all"), None),
}


def made(kind: str, workers: int, ids: list[int] | None = None, one_by_one: bool = True) -> Problem:
    dataset, partition, model, batch = KINDS[kind]
    ids = list(range(workers)) if ids is None else ids
    data = dataset.load(workers, 3, torch.float64)
    parts, options = partition.split(data, workers, 3), GradientOptions(workers="loop" if one_by_one else "auto")
    context = ProblemContext(parts, ids, batch, 3, torch.device("cpu"), torch.float64, speed=options)
    problem = build_problem(model, data, context)
    return PerWorkerProblem.of(problem) if one_by_one else problem


def held(thing: object) -> int:
    """Bytes of all tensors that can be reached from it, each memory once."""
    seen, found, stack = set(), {}, [thing]
    while stack:
        one = stack.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        stack += gc.get_referents(one)
    return sum(found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_memory_grows_with_what_the_workers_hold(kind: str) -> None:
    """Four times the workers: four times the data and Gram matrices at most, where each brings some of its own."""
    few, many = made(kind, 4), made(kind, 16)
    assert held(many) < held(few) * (4.1 if kind == "least squares" else 1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_alone_computes_what_it_would_in_a_process_of_its_own(kind: str) -> None:
    together = made(kind, 4)
    x = together.init(generator(0, "x")) + 0.1
    for n in (2, 0, 3):
        apart = made(kind, 4, [n], one_by_one=False)
        together.select_worker(n)  # type: ignore[attr-defined]
        results = []
        for problem in (together, apart):
            batches = (problem.batch(0), problem.batch(5), problem.fresh(1, 3))
            pairs = [problem.loss_and_grad(x[None], b) for b in batches if b is not None]
            pairs += [problem.local_gradient(x[None]), problem.common_gradient(x[None], 2)]
            results.append([(loss.clone(), grad.clone()) for loss, grad in pairs])
            results[-1] += [problem.training_gradient(x), tuple(problem.evaluate(x).values())]
        for mine, its in zip(*results, strict=True):
            for a, b in zip(mine, its, strict=True):
                torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-12, atol=0)


def test_a_process_keeps_the_gram_matrices_of_its_own_workers() -> None:
    assert (
        held(made("least squares", 16, [5], one_by_one=False))
        < held(made("least squares", 4, [1], one_by_one=False)) * 1.5
    )


def test_uneven_parts_are_not_filled_up_to_the_largest() -> None:
    """One worker has nearly everything, 63 have a sample each."""
    x = torch.randn(1000, 5, generator=generator(0, "x"), dtype=torch.float64)
    parts = [torch.arange(63, 1000), *torch.arange(63)[:, None]]
    context = ProblemContext(parts, range(64), None, 0, torch.device("cpu"), torch.float64)
    y = 2.0 * (x[:, 0] > 0).double() - 1
    problem = LogisticRegression().problem(Data(x, y), context)
    before, point = held(problem), torch.ones(64, 5, dtype=torch.float64)
    losses, gradients = problem.loss_and_grad(point, problem.batch(0))
    assert held(problem) - before < 3 * held(x)
    for n in (0, 5):
        a = y[parts[n], None] * x[parts[n]]
        slopes = -1 / (1 + (a @ point[n]).exp())
        torch.testing.assert_close(gradients[n], (slopes[:, None] * a).mean(0))
        torch.testing.assert_close(losses[n], (1 + (-a @ point[n]).exp()).log().mean())
