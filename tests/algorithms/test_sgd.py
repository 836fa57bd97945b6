"""Synchronous SGD against torch's optimiser, its schedules, and its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from registry import on_vectors, options, plan, target

from commexp.algorithms import SGD, Algorithm, AlgorithmContext, Schedule
from commexp.algorithms.local.control_variates import ControlVariates
from commexp.comm import Communicator, Ledger, Links
from commexp.compressors import ErrorFeedback, NoCompression, TopK
from commexp.experiment.checkpoint import load_checkpoint, save_checkpoint
from commexp.problems.base import ProblemContext
from commexp.problems.datasets import LinReg
from commexp.problems.least_squares import LeastSquares
from commexp.topologies import Mixer

N, J = 5, 20


def problem() -> LeastSquares:
    data = LinReg(dim=J, samples=30).load(N, 0, torch.float64)
    assert data.shards is not None
    return LeastSquares(data, ProblemContext(data.shards, range(N), None, 0, torch.device("cpu"), torch.float64))


def context(steps: int = 40, codec: object = None, **comm: object) -> AlgorithmContext:
    exchange = Communicator(N, Ledger(), **comm)  # type: ignore[arg-type]
    start = torch.linspace(-1, 1, J, dtype=torch.float64)
    made = problem()
    codec = codec or NoCompression()
    return AlgorithmContext(made, exchange, codec, steps, start, sizes=made.local_sizes)  # type: ignore[arg-type]


def go(algorithm: Algorithm, world: AlgorithmContext, rounds: int = 40) -> torch.Tensor:
    algorithm.setup(world)
    for t in range(rounds):
        algorithm.round(t)
    return algorithm.model()


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_dense_is_torchs_sgd_on_the_mean_gradient(momentum: float, nesterov: bool) -> None:
    ours = go(SGD(lr=0.02, momentum=momentum, nesterov=nesterov, weight_decay=0.01), context())
    objective = problem()
    x = torch.nn.Parameter(torch.linspace(-1, 1, J, dtype=torch.float64))
    optimizer = torch.optim.SGD([x], 0.02, momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    for _ in range(40):
        x.grad = objective.loss_and_grad(x.detach().expand(N, -1), None)[1].mean(0)
        optimizer.step()
    torch.testing.assert_close(ours, x.detach(), rtol=1e-10, atol=1e-12)


def test_nesterov_without_momentum_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(ValueError, match=r"^nesterov=True: needs momentum; give momentum=0.9$"):
        SGD(lr=0.02, nesterov=True)
    with pytest.raises(ValueError, match="Nesterov momentum requires a momentum"):
        torch.optim.SGD([torch.zeros(1)], 0.02, nesterov=True)


def test_topk_with_every_entry_is_dense() -> None:
    dense, all_entries = go(SGD(lr=0.02), context()), go(SGD(lr=0.02), context(codec=ErrorFeedback(TopK(k=1.0))))
    torch.testing.assert_close(dense, all_entries, rtol=1e-10, atol=1e-12)


def test_topk_without_error_feedback_differs_from_topk_with_it() -> None:
    without, with_it = (
        go(SGD(lr=0.02), context(codec=TopK(k=3))),
        go(SGD(lr=0.02), context(codec=ErrorFeedback(TopK(k=3)))),
    )
    assert float((without - with_it).norm()) > 1e-3


def test_deterministic_sums_agree_with_the_others() -> None:
    a, b = (go(SGD(lr=0.02), context(codec=TopK(k=3), deterministic=d)) for d in (True, False))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def in_step() -> list[str]:
    """Algorithms whose world is the problem and the exchange alone; others have resumptions of their own."""
    made = {name: target("algo", name) for name in options("algo")}
    return [name for name, algorithm in made.items() if not (algorithm.coded or algorithm.asynchronous)]


@pytest.mark.parametrize("case", [*in_step(), "choco compress=topk", "dsgt compress=topk"])
def test_state_resumes_bit_for_bit(case: str, tmp_path: Path) -> None:
    algo, *words = case.split()

    def world() -> tuple[Algorithm, AlgorithmContext]:
        k = ["compress.k=3"] if words or algo in ("topk", "regtopk") else []
        given = [*on_vectors(algo), *words, *k, "algo.lr=0.01", "algo.schedule.kind=constant", f"workers={N}"]
        made = plan(*given)
        if getattr(made.algorithm, "optimizer", "") == "sgd" and not isinstance(made.algorithm, ControlVariates):
            made = plan(*given, "algo.momentum=0.9")
        mixer = Mixer(made.topology, made.gossip, N, 0) if made.algorithm.decentralised else None
        return made.algorithm, context(90, codec=made.compressor, mixer=mixer)

    whole, its_world = world()
    rounds = len(whole.lengths(its_world.steps))
    expected = go(whole, its_world, rounds).clone()
    first, first_world = world()
    go(first, first_world, rounds // 2)
    memory = [name for name in first.state_dict() if "mixing" in name]
    assert bool(memory) == (algo == "choco" or bool(words))
    second, second_world = world()
    second.setup(second_world)
    save_checkpoint(tmp_path, rounds // 2, first.state_dict(), range(N), Links())
    found = load_checkpoint(tmp_path, range(N), Links())
    assert found is not None
    second.load_state_dict(found[1])
    for t in range(rounds // 2, rounds):
        second.round(t)
    assert torch.equal(second.model(), expected)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1, 1, 1, 1]),
        (Schedule(warmup=4), [0.25, 1, 1, 1]),
        (Schedule(kind="step", milestones=[0.5, 0.75], gamma=0.1), [1, 0.1, 0.01, 0.01]),
        (Schedule(kind="cosine"), [1, 0.5, (1 + np.cos(0.75 * np.pi)) / 2, (1 + np.cos(0.99 * np.pi)) / 2]),
        (Schedule(kind="cosine", warmup=50), [0.02, 1, 0.5, (1 + np.cos(0.98 * np.pi)) / 2]),
    ],
)
def test_schedules(schedule: Schedule, expected: list[float]) -> None:
    assert [schedule.factor(t, 100) for t in (0, 50, 75, 99)] == pytest.approx(expected)


def test_diverging_schedule_fields_are_refused() -> None:
    for bad in ({"kind": "linear"}, {"warmup": -1}, {"milestones": [1.5]}, {"gamma": 0.0}):
        with pytest.raises(ValueError, match=f"schedule.{next(iter(bad))}="):
            Schedule(**bad)  # type: ignore[arg-type]
