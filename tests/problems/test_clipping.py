"""Clipping: what becomes of a gradient, and every family of algorithms against a recursion in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from problems.test_nonfinite import WORKERS, Given, sound
from registry import plan
from torch import Tensor

from commexp.config.messages import UserError
from commexp.experiment.setup import ExperimentSetup
from commexp.problems import ClippedGradients
from commexp.problems.base import Ready
from commexp.run_folder import Run

N, J, D, ROUNDS, LR, CLIP = 4, 6, 9, 8, 0.1, 8.0
WORDS = ["dataset=linreg", "model=linear_regression", f"dataset.dim={J}", f"dataset.samples={D}", f"workers={N}"]
WORDS += ["batch_size=null", "dtype=float64", f"rounds={ROUNDS}", f"algo.lr={LR}", f"clip={CLIP}"]
PLAIN = ["algo.schedule.kind=constant", "algo.schedule.warmup=0", "algo.weight_decay=0"]
Vector = np.ndarray


class World:
    """f_n(x) = ||A_n x - b_n||^2 / D, and the run that ``words`` describe, before its first round."""

    def __init__(self, *words: str) -> None:
        made = plan(*WORDS, *words)
        data = made.dataset.load(N, 0, torch.float64)
        self.a, self.b = data.train_x.numpy().reshape(N, D, J), data.train_y.numpy().reshape(N, D)
        self.setup = ExperimentSetup(made, torch.device("cpu"), Run(Path("none")))
        self.start = self.setup.algorithm.model().numpy().copy()
        self.lengths: list[float] = []

    def whole(self, n: int, x: Vector) -> Vector:
        found: Vector = 2 / D * self.a[n].T @ (self.a[n] @ x - self.b[n])
        return found

    def clipped(self, n: int, x: Vector) -> Vector:
        g = self.whole(n, x)
        self.lengths.append(math.sqrt(sum(entry * entry for entry in g)))
        return g * min(1.0, CLIP / self.lengths[-1])

    def each(self, x: Vector) -> Vector:
        """x [N, J] -> the clipped gradients [N, J]."""
        return np.stack([self.clipped(n, row) for n, row in enumerate(x)])

    def agrees(self, expected: Vector) -> None:
        """That ROUNDS rounds of the run end at ``expected``, and that some gradients were clipped and some not."""
        for t in range(ROUNDS):
            self.setup.algorithm.round(t)
        np.testing.assert_allclose(self.setup.algorithm.model().numpy(), expected, rtol=1e-10, atol=1e-12)
        assert min(self.lengths) < CLIP < max(self.lengths)


@pytest.mark.parametrize("sam", [0.0, 0.2])
def test_gradients_of_sgd(sam: float) -> None:
    world = World("algo=sgd", f"algo.sam={sam}", *PLAIN)
    x = world.start
    for _ in range(ROUNDS):
        ascents = [world.whole(n, x) for n in range(N)]
        x = x - LR * world.each(np.stack([x + sam * g / np.linalg.norm(g) for g in ascents])).mean(0)
    world.agrees(x)


def test_clipping_comes_before_the_compressor() -> None:
    world = World("algo=topk", "compress.k=2", *PLAIN)
    x, residual = world.start, np.zeros((N, J))
    for _ in range(ROUNDS):
        told = residual + world.each(np.tile(x, (N, 1)))
        sent = np.where(np.abs(told) >= np.sort(np.abs(told), axis=1)[:, -2:-1], told, 0)
        x, residual = x - LR * sent.mean(0), told - sent
    world.agrees(x)


def test_local_steps() -> None:
    world = World("algo=localsgd", "algo.tau=3", "algo.momentum=0.9", *PLAIN)
    x, u = np.tile(world.start, (N, 1)), np.zeros((N, J))
    for _ in range(ROUNDS):
        for _ in range(3):
            u = 0.9 * u + world.each(x)
            x = x - LR * u
        x = np.tile(x.mean(0), (N, 1))
    world.agrees(x[0])


def test_gradients_on_a_graph() -> None:
    world = World("algo=dpsgd", "topology=ring", *PLAIN)
    x = np.tile(world.start, (N, 1))
    for _ in range(ROUNDS):
        x = (x + np.roll(x, 1, 0) + np.roll(x, -1, 0)) / 3 - LR * world.each(x)
    world.agrees(x.mean(0))


def test_gradient_tracking_follows_the_mean_of_clipped_gradients() -> None:
    world = World(
        "algo=dsgt", "topology=complete", "debug=true", "algo.schedule.kind=constant", "algo.schedule.warmup=0"
    )
    x, y, v = np.tile(world.start, (N, 1)), np.zeros((N, J)), np.zeros((N, J))
    for _ in range(ROUNDS):
        new = world.each(x)
        y, v = y.mean(0) + new - v, new
        x = np.tile((x - LR * y).mean(0), (N, 1))
    world.agrees(x[0])


def test_coded_methods_clip_the_gradient_of_each_subset() -> None:
    world = World("algo=exact_coding", "allocation.d=2", *PLAIN)
    x = world.start
    for _ in range(ROUNDS):
        x = x - LR * world.each(np.tile(x, (N, 1))).mean(0)
    world.agrees(x)


@pytest.mark.parametrize("solver", ["sgd", "svrg"])
def test_workers_that_do_not_wait(solver: str) -> None:
    """One worker's parameters are its own, so that each message is ``iterations`` local steps from the last one. The
    full gradient of svrg is not clipped."""
    world = World("algo=sync_ps", f"algo.solver={solver}", "algo.iterations=2", "preset.seconds=0.01")
    x = world.start
    for _ in range(ROUNDS):
        moved = []
        for n in range(N):
            z = x
            for _ in range(2):
                correction = world.whole(n, x) - world.clipped(n, x) if solver == "svrg" else 0.0
                z = z - LR * (world.clipped(n, z) + correction)
            moved.append(z)
        x = np.mean(moved, axis=0)
    world.agrees(x)


def guarded(grad: Tensor, policy: str = "stop", clip: float = 10.0) -> ClippedGradients:
    return ClippedGradients(Given(grad), WORKERS, policy, clip=clip)


def test_longer_rows_are_scaled_down_and_others_keep_their_bits() -> None:
    grad = sound()
    given, x = grad.clone(), torch.zeros(3, 8)
    _, found = guarded(grad, clip=20.0).loss_and_grad(x, 0)
    norms = given.double().norm(dim=1)
    assert norms[0] < 20 < norms[1]
    assert torch.equal(found[0], given[0])
    expected = (given.double() * (20 / norms)[:, None]).float()
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-6, atol=0)
    assert torch.equal(grad, given), "the problem's own tensor was written to"
    for n in range(3):
        alone = ClippedGradients(Given(given[n : n + 1]), [n], "stop", clip=20.0)
        assert torch.equal(alone.loss_and_grad(x[:1], 0)[1][0], found[n])


def test_norms_that_float32_cannot_hold_and_gradients_of_zero() -> None:
    grad = torch.zeros(3, 8)
    grad[1], grad[2] = 1e30, 1e-30
    _, found = guarded(grad).loss_and_grad(torch.zeros(3, 8), 0)
    assert torch.equal(found[[0, 2]], grad[[0, 2]])
    torch.testing.assert_close(found[1], torch.full((8,), 10 / math.sqrt(8)))


@pytest.mark.parametrize("policy", ["stop", "skip", "zero"])
def test_the_check_for_nan_comes_first(policy: str) -> None:
    grad = sound()
    grad[1, 2] = math.nan
    problem = guarded(grad, policy)
    _, found = problem.loss_and_grad(torch.zeros(3, 8), 0)
    assert problem.count == 1
    assert (problem.fault is not None) == (policy == "stop")
    assert bool(found.isfinite().all())
    assert float(found[1].norm()) == pytest.approx(10 if policy == "zero" else 0)
    torch.testing.assert_close(found[[0, 2]].norm(dim=1), torch.tensor([10.0, 10.0]))


def test_only_gradients_of_batches_are_clipped() -> None:
    problem, x = guarded(sound(), clip=1.0), torch.zeros(3, 8)
    assert torch.equal(problem.local_gradient(x)[1], sound())
    assert torch.equal(problem.common_gradient(x, 2)[1], sound())


class Early(Given):
    """Says that its gradient is final, where it is asked to."""

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        if ready is not None:
            ready(self.grad[0], 0)
        return super().loss_and_grad(x, batch)


def test_nothing_is_sent_before_the_norm_is_known() -> None:
    def fails(gradient: Tensor, start: int) -> None:
        raise AssertionError("not final")

    problem = ClippedGradients(Early(sound()[:1]), [0], "stop", clip=1.0)
    problem.loss_and_grad(torch.zeros(1, 8), 0, fails)
    setups = [
        ExperimentSetup(plan("workers=2", *words), torch.device("cpu"), Run(Path("none")))
        for words in ([], ["clip=1.0"])
    ]
    assert [setup.bucket is None for setup in setups] == [False, True]


def test_the_name_has_the_clip_and_a_preset_gives_it(run: Callable[..., Run]) -> None:
    plain, clipped = plan(), plan("clip=0.5")
    assert plain.name == plan("clip=null").name != clipped.name
    assert plan("+preset.clip=0.5").name == clipped.name
    assert plan("+preset.clip=0.5", "clip=null").name == plain.name
    words = ("model=mlp", "rounds=3", "eval_every=3", "workers=2")
    assert run(*words, "clip=1e-3").metrics["train_loss"].iloc[-1] > run(*words).metrics["train_loss"].iloc[-1]


@pytest.mark.parametrize("clip", ["0", "-1", "nan", "x"])
def test_what_is_no_norm_is_refused(clip: str) -> None:
    with pytest.raises(UserError, match=r"^clip=.*; give "):
        plan(f"clip={clip}")
