"""Methods with local steps: every row of metrics.csv, the first and the last too, against recursions in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from registry import plan

from commexp.experiment.setup import ExperimentSetup
from commexp.run_folder import Run

N, J, D, TAU, ROUNDS, LR = 4, 6, 9, 3, 5, 0.02
STEPS = TAU * ROUNDS
WORDS = ["dataset=linreg", f"dataset.dim={J}", f"dataset.samples={D}", f"workers={N}", "dtype=float64"]
WORDS += [f"steps={STEPS}", "eval_every=1", f"algo.lr={LR}", "algo.optimizer=sgd", "algo.momentum=0"]
WORDS += ["algo.weight_decay=0", "algo.schedule.kind=constant", "algo.schedule.warmup=0"]
Vector = np.ndarray


class World:
    """F = (1/N) sum_n (1/D) ||A_n x - b_n||^2; a method's workers x [N, J], its model, and what it keeps."""

    def __init__(self, words: list[str]) -> None:
        made = plan(*words)
        data = made.dataset.load(N, 0, torch.float64)
        self.a, self.b = data.train_x.numpy().reshape(N, D, J), data.train_y.numpy().reshape(N, D)
        start = ExperimentSetup(made, torch.device("cpu"), Run(Path("none"))).algorithm.model().numpy().copy()
        self.x, self.model, self.kept = np.tile(start, (N, 1)), start, np.zeros(J)
        self.losses = np.zeros(N)
        self.optimum = np.linalg.lstsq(self.a.reshape(-1, J), self.b.ravel(), rcond=None)[0]

    def each_loss(self, x: Vector) -> Vector:
        """Of row n, f_n there."""
        found: Vector = ((np.einsum("ndj,nj->nd", self.a, x) - self.b) ** 2).mean(1)
        return found

    def loss(self, x: Vector) -> float:
        return float(self.each_loss(np.tile(x, (N, 1))).mean())

    def step(self, count: int) -> None:
        self.losses = np.zeros(N)
        for _ in range(count):
            self.losses += self.each_loss(self.x) / count
            error = np.einsum("ndj,nj->nd", self.a, self.x) - self.b
            self.x = self.x - LR * 2 / D * np.einsum("ndj,nd->nj", self.a, error)

    def whole_gradient(self, x: Vector) -> Vector:
        found: Vector = 2 / D * np.einsum("ndj,nd->j", self.a, self.a @ x - self.b) / N
        return found


def pushed(world: World, centre: Vector, pull: float, push: float) -> Vector:
    away = world.x - world.x.mean(0)
    unit = away / np.linalg.norm(away, axis=1, keepdims=True)
    moved: Vector = world.x - pull * (world.x - centre) + push * unit
    return moved


def increasing(push: float, t: int) -> float:
    return push * (1 - math.cos(math.pi * (t + 1) / ROUNDS)) / 2


def averaging(world: World, t: int, push: float) -> None:
    world.model = world.x.mean(0)
    world.x = np.tile(world.model, (N, 1))


def dppf(world: World, t: int, push: float) -> None:
    world.model = world.x.mean(0)
    world.x = pushed(world, world.model, 0.3, increasing(push, t))


def easgd(world: World, t: int, push: float) -> None:
    centre, average = world.model, world.x.mean(0)
    world.x = pushed(world, centre, 0.8 / N, increasing(push, t))
    world.model = 0.2 * centre + 0.8 * average


def lsgd(world: World, t: int, push: float) -> None:
    world.model = world.x.mean(0)
    world.x = pushed(world, world.x[np.argmin(world.losses)], 0.3, increasing(push, t))


def mgrawa(world: World, t: int, push: float) -> None:
    norms = np.array([np.linalg.norm(world.whole_gradient(x)) for x in world.x])
    world.kept = 0.4 * (world.kept if t else np.zeros(N)) + 0.6 * norms
    share = (1 - 0.4 ** (t + 1)) / world.kept
    world.model = world.x.mean(0)
    world.x = pushed(world, share @ world.x / share.sum(), 0.3, increasing(push, t))


def diloco(world: World, t: int, push: float) -> None:
    outer = world.model - world.x.mean(0)
    world.kept = 0.9 * world.kept + outer
    world.model = world.model - 0.7 * (outer + 0.9 * world.kept)
    world.x = np.tile(world.model, (N, 1))


PULL, PUSH = "algo.pull=0.3", "algo.push=0.4"
CASES: dict[str, tuple[Callable[[World, int, float], None], float, list[str]]] = {
    "localsgd": (averaging, 0, []),
    "postlocal": (averaging, 0, ["algo.switch=0"]),
    "qsr": (averaging, 0, ["algo.growth=1e-9"]),
    "dppf": (dppf, 0.4, [PULL, PUSH]),
    "easgd": (easgd, 0, ["algo.beta=0.8", "algo.push=0"]),
    "easgd, pushed": (easgd, 0.4, ["algo.beta=0.8", PUSH]),
    "lsgd": (lsgd, 0, [PULL, "algo.push=0"]),
    "lsgd, pushed": (lsgd, 0.4, [PULL, PUSH]),
    "mgrawa": (mgrawa, 0, [PULL, "algo.push=0", "algo.smoothing=0.4"]),
    "mgrawa, pushed": (mgrawa, 0.4, [PULL, PUSH, "algo.smoothing=0.4"]),
    "diloco": (diloco, 0, ["algo.outer_lr=0.7", "algo.outer_momentum=0.9"]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_row_is_of_the_average_before_the_exchange(case: str, run: Callable[..., Run]) -> None:
    """consensus and valley_width are measured from x_A, the average of the workers before the exchange; x_A is the
    model, but for easgd (the centre variable) and diloco (what its outer optimiser makes of x_A)."""
    move, push, more = CASES[case]
    words = [*WORDS, f"algo={case.split(',')[0]}", f"algo.tau={TAU}", *more]
    found = run(*words).metrics
    assert list(found["step"]) == list(range(0, STEPS + 1, TAU))
    world, consensus, width = World(words), 0.0, 0.0
    for t, row in enumerate(found.to_dict("records")):
        wanted = {
            "train_loss": world.loss(world.model),
            "dist_to_opt": float(np.linalg.norm(world.model - world.optimum)),
            "consensus": consensus,
            "valley_width": width,
        }
        assert {k: row[k] for k in wanted} == pytest.approx(wanted, rel=1e-9, abs=1e-20), f"row {t}"
        world.step(TAU)
        centre = world.x.mean(0)
        consensus = float(((world.x - centre) ** 2).sum())
        move(world, t, push)
        width = float(np.linalg.norm(world.x - centre, axis=1).mean())
