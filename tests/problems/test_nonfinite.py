"""The watch over gradients: what it finds, whom it names, what each policy leaves."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import Tensor

from commexp.problems import NonFiniteError, NonFiniteGuard, Problem

WORKERS = (4, 5, 7)  # global numbers of the rows
HUGE = 3e38  # finite in float32; the sum of two is not
BAD = {"NaN": math.nan, "Inf": -math.inf}


class Given(Problem):
    """Gradients as they were given, whichever are asked for."""

    dim, samples, samples_per_step, shapes = 8, 30, 10, {"stem.weight": (2, 3), "scale": (), "head.bias": (1,)}

    def __init__(self, grad: Tensor) -> None:
        self.grad = grad

    def init(self, generator: torch.Generator) -> Tensor:
        return torch.zeros(self.dim)

    def batch(self, step: int) -> int:
        return step

    def loss_and_grad(self, x: Tensor, batch: object, ready: object = None) -> tuple[Tensor, Tensor]:
        return torch.ones(len(WORKERS)), self.grad

    def fresh(self, step: int, size: int) -> int:
        return -step

    def fresh_samples(self, size: int) -> float:
        return 2.0 * size

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss_and_grad(x, None)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self.loss_and_grad(x, step)

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        return 1.0, self.grad[0]

    def evaluate(self, x: Tensor) -> dict[str, float]:
        return {"train_loss": 1.0}

    def optimum(self) -> Tensor:
        return torch.ones(self.dim)


def sound() -> Tensor:
    return torch.arange(24.0).view(3, 8) + 1


def checked(grad: Tensor, policy: str) -> tuple[NonFiniteGuard, Tensor]:
    problem = NonFiniteGuard(Given(grad), WORKERS, policy)
    problem.round = 3
    _, result = problem.loss_and_grad(torch.zeros(3, 8), problem.batch(2))
    return problem, result


@pytest.mark.parametrize("policy", ["stop", "zero"])
@pytest.mark.parametrize("kind", ["common", "local"])
def test_gradients_on_other_batches_are_watched_too(kind: str, policy: str) -> None:
    grad = sound()
    grad[1, 7] = math.nan
    problem = NonFiniteGuard(Given(grad), WORKERS, policy)
    problem.round = 9
    x = torch.zeros(3, 8)
    _, found = problem.common_gradient(x, 2) if kind == "common" else problem.local_gradient(x)
    assert bool(found.isfinite().all())
    assert problem.count == 1
    assert (problem.fault is not None) == (policy == "stop")
    if problem.fault is not None:
        assert str(problem.fault) == "round 9, worker 5: the gradient of head.bias holds NaN"
    problem = NonFiniteGuard(Given(sound()), WORKERS, policy)
    assert torch.equal(problem.local_gradient(x)[1], sound())


def test_everything_else_is_the_problems_own() -> None:
    inner = Given(sound())
    problem = NonFiniteGuard(inner, WORKERS, "stop")
    for name in ("dim", "samples", "samples_per_step", "shapes"):
        assert getattr(problem, name) == getattr(inner, name)
    assert torch.equal(problem.init(torch.Generator()), torch.zeros(8))
    assert problem.evaluate(torch.zeros(8)) == {"train_loss": 1.0}
    assert torch.equal(problem.optimum(), torch.ones(8))
    assert problem.batch(2) == 2
    assert problem.fresh(3, 5) == -3
    assert problem.fresh_samples(5) == 10.0
    assert problem.prox is inner.prox


@pytest.mark.parametrize("policy", ["stop", "skip", "zero"])
@pytest.mark.parametrize("value", [1.0, HUGE, -HUGE])
def test_finite_gradients_pass_as_they_are(policy: str, value: float) -> None:
    grad = sound()
    grad[1, 2:5] = value
    problem, result = checked(grad, policy)
    assert result is grad
    assert problem.count == 0


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize(
    ("row", "column", "tensor"), [(0, 0, "stem.weight"), (1, 5, "stem.weight"), (1, 6, "scale"), (2, 7, "head.bias")]
)
def test_stop_names_round_worker_tensor_and_kind(kind: str, row: int, column: int, tensor: str) -> None:
    grad = sound()
    grad[row, column] = BAD[kind]
    problem, result = checked(grad, "stop")
    error = problem.fault
    assert isinstance(error, NonFiniteError)
    assert result[row].abs().max() == 0
    assert (error.round, error.worker, error.tensor, error.kind) == (3, WORKERS[row], tensor, kind)
    assert str(error) == f"round 3, worker {WORKERS[row]}: the gradient of {tensor} holds {kind}"


@pytest.mark.parametrize("value", BAD.values())
def test_skip_and_zero_leave_the_other_workers_alone(value: float, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "commexp")
    for policy, gone in (("skip", slice(None)), ("zero", slice(6, 7))):
        grad, expected = sound(), sound()
        grad[1, 6], expected[1, gone] = value, 0
        problem, result = checked(grad, policy)
        assert torch.equal(result, expected)
        assert problem.count == 1
        assert "round 3, worker 5: the gradient of scale holds" in caplog.text
    assert "8 of its 8 entries become zero" in caplog.text
    assert "1 of its 8 entries become zero" in caplog.text


def test_a_sum_that_overflows_beside_a_true_fault() -> None:
    grad, expected = sound(), sound()
    grad[0, :3] = expected[0, :3] = HUGE
    grad[2, 1], expected[2, 1] = math.nan, 0
    problem, result = checked(grad, "zero")
    assert torch.equal(result, expected)
    assert problem.count == 1


def test_infinities_that_cancel_are_found(caplog: pytest.LogCaptureFixture) -> None:
    grad = sound()
    grad[0, 1], grad[0, 2], grad[2, 7] = math.inf, -math.inf, math.nan
    problem, result = checked(grad, "skip")
    assert problem.count == 2
    assert result[[0, 2]].abs().max() == 0
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == ["round 3, worker 4", "round 3, worker 7"]
