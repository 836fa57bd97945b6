"""Asynchronous methods on a9a, two tables and a figure: python scripts/async_study.py [--root FOLDER]

async_logistic   10 workers, the last ten times as slow as the first: time and messages to a small F - F*, and how the
                 gain over a barrier depends on the spread of the speeds
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.api import compose_config
from commexp.config.messages import UserError
from commexp.config.plan import prepare
from commexp.experiment.setup import ExperimentSetup
from commexp.report.style import compact, figure, line_style, log_scale, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
STEPS = (0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
DECAYS = (0.0, 1e-4, 1e-3)  # of the step, for each local step of a worker; 10 workers
LOCAL = 100  # local steps, where nothing else is said
TRIED, ALLOWED = 15_000, 400_000  # gradients of a batch, of all workers: of a first trial, and of all other runs
NEAR, GOAL = 1e-3, 1e-4
METHODS: dict[str, tuple[str, ...]] = {
    "sync_ps, sgd": ("algo=sync_ps",),
    "sync_ps, svrg": ("algo=sync_ps", "algo.solver=svrg"),
    "async_ps, sgd": ("algo=async_ps",),
    "async_ps, svrg": ("algo=async_ps", "algo.solver=svrg"),
    "async_ps pairwise, svrg": ("algo=async_ps", "algo.solver=svrg", "algo.aggregation=pairwise"),
    "ssp, svrg": ("algo=ssp", "algo.solver=svrg"),
    "async_sgd, sgd": ("algo=async_sgd",),
    "async_sgd, svrg": ("algo=async_sgd", "algo.solver=svrg"),
}
BARRIER, FREE = "sync_ps, svrg", "async_ps, svrg"
#: factors of the workers' times; all others are 1
SPEEDS: dict[str, tuple[float, ...]] = {
    "times 1, 2, ..., 10": tuple(range(1, 11)),
    "times 1 to 10, logarithms evenly": tuple(round(10 ** (n / 9), 4) for n in range(10)),
    "times 10, 10, and eight 1": (10, 10),
    "times 10, and nine 1": (10,),
}
COUNTS = (25, 50, 200, 400)  # p, and LOCAL
#: what else is changed; with times 1, 2, ..., 10 where nothing is said
CHANGED: dict[str, tuple[str, ...]] = {
    "steps that fit into 0.25 s": ("algo.slice=0.25",),
    "50 and 10 Mbit/s, 30 ms": ("network=mobile",),
    "times 1; 10 in a tenth of the cycles": ("network.compute.slow=[]", "straggler=bernoulli"),
    "times drawn, lognormal": ("network.compute={slow: [], kind: lognormal, spread: 2}",),
}


class Point(NamedTuple):
    gap: float
    seconds: float
    calls: int


class Tuned(NamedTuple):
    step: float
    decay: float


def words_of(words: Sequence[str]) -> list[str]:
    return ["+experiment=async_logistic", *words]


def set_up(words: Sequence[str]) -> ExperimentSetup:
    return ExperimentSetup(prepare(compose_config(words_of(words))), torch.device("cpu"), Run(OUT / "none"))


def objective(made: ExperimentSetup, x: torch.Tensor) -> float:
    return made.problem.training_gradient(x)[0]


@cache
def least(root: str) -> float:
    """F at scikit-learn's solution of the same problem, F the mean of the workers' means."""
    made = set_up([f"dataset.root={root}"])
    problem = made.problem.problems[0]  # type: ignore[attr-defined]
    signed, shares = problem.margins.signed.toarray(), problem.shares.numpy()
    labels = 1 - 2 * (np.arange(len(signed)) % 2)  # a sample and its mirror image have the same loss
    strength = 1 / (problem.l2 * len(signed))
    model = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    model.fit(signed * labels[:, None], labels, sample_weight=shares * len(signed))
    return objective(made, torch.from_numpy(model.coef_[0]))


def curve(words: Sequence[str], best: float, gradients: float) -> list[Point]:
    """The curve of ``measured``, from the cache if it is there."""
    key = hashlib.sha256(json.dumps([prepare(compose_config(words_of(words))).name, gradients]).encode()).hexdigest()
    kept = OUT / "async_logistic" / f"{key[:16]}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps(measured(words, best, gradients)))
    return [Point(*numbers) for numbers in json.loads(kept.read_text(encoding="utf-8"))]


def measured(words: Sequence[str], best: float, gradients: float) -> list[Point]:
    """Runs to the goal, to the largest number of gradients, or until it stagnates: until the last half of the
    gradients, at least 20,000, improve F - F* by less than a tenth."""
    torch.set_num_threads(1)
    made = set_up(words)
    method = made.algorithm
    assert isinstance(method, Asynchronous)
    points = [Point(objective(made, method.model()) - best, 0.0, 0)]
    lowest, spent, t = {0.0: points[0].gap}, 0.0, 0
    while spent < gradients and GOAL < points[-1].gap < 10:
        costs, before = [method.gradients_for(n) for n in range(len(method.calls))], list(method.calls)
        method.round(t)
        t += 1
        spent += sum(cost * (now - was) for cost, now, was in zip(costs, method.calls, before, strict=True))
        if spent - max(lowest) >= 400:
            points.append(Point(objective(made, method.model()) - best, made.record.clock.now, sum(method.calls)))
            lowest[spent] = min(points[-1].gap, *lowest.values())
            half = [gap for at, gap in lowest.items() if at <= spent / 2]
            if spent >= 40_000 and lowest[spent] > 0.9 * half[-1]:
                break
    return points


class Study:
    """Curves by method, step, seed and changed keys."""

    def __init__(self, root: str) -> None:
        self.root, self.best = root, least(root)

    def words(self, name: str, tuned: Tuned, seed: int, local: int = LOCAL, *more: str) -> tuple[str, ...]:
        steps = 1 if "async_sgd" in name else local
        given = () if steps in (1, LOCAL) else (f"algo.iterations={steps}",)
        rate = (f"algo.lr={tuned.step:g}", f"algo.decay={tuned.decay * steps:g}")
        return *METHODS[name], *rate, *given, *more, f"seed={seed}", f"dataset.root={self.root}"

    def curves(self, commands: Sequence[tuple[str, ...]], gradients: float = ALLOWED) -> list[list[Point]]:
        found = []
        with get_context("spawn").Pool(2) as pool:
            for points in pool.imap(partial(curve, best=self.best, gradients=gradients), commands):
                found.append(points)
                print(f"\r{len(found)} of {len(commands)} runs", end="", file=sys.stderr)
        print(file=sys.stderr)
        return found

    def tune(self) -> dict[str, Tuned]:
        """Seed 0: for each decay the best step after a few gradients, then the best of these to the end."""
        tried = [(name, Tuned(step, decay)) for name in METHODS for decay in DECAYS for step in STEPS]
        early = dict(zip(tried, self.curves([self.words(*each, 0) for each in tried], TRIED), strict=True))

        def first_best(name: str, decay: float) -> Tuned:
            return min((Tuned(step, decay) for step in STEPS), key=lambda tuned: cost(early[name, tuned]))

        left = [(name, first_best(name, decay)) for name in METHODS for decay in DECAYS]
        late = dict(zip(left, self.curves([self.words(*each, 0) for each in left]), strict=True))
        return {name: min((t for n, t in left if n == name), key=lambda t: cost(late[name, t])) for name in METHODS}


def first(points: Iterable[Point], gap: float) -> Point | None:
    return next((point for point in points if point.gap <= gap), None)


def cost(points: Sequence[Point]) -> tuple[float, float]:
    """Seconds to the goal; for curves that do not reach it, the maximum of F - F* over the last quarter."""
    there = first(points, GOAL)
    worst = max(point.gap if np.isfinite(point.gap) else np.inf for point in points[-max(1, len(points) // 4) :])
    return (there.seconds, 0.0) if there else (np.inf, worst)


def cells(runs: Sequence[Sequence[Point]], gap: float) -> list[str]:
    """Mean messages and seconds of the seeds that reach the goal."""
    there = [point for points in runs if (point := first(points, gap))]
    if not there:
        return ["-", "-"]
    few = f" ({len(there)} of {len(runs)} seeds)" if len(there) < len(runs) else ""
    return [f"{np.mean([p.calls for p in there]):,.0f}{few}", f"{np.mean([p.seconds for p in there]):.1f}"]


def seconds(runs: Sequence[Sequence[Point]]) -> float:
    """Mean seconds to the goal; infinite if a seed does not reach it."""
    return float(np.mean([point.seconds if (point := first(points, GOAL)) else np.inf for points in runs]))


def end(runs: Sequence[Sequence[Point]]) -> str:
    """Seconds to the goal, or the final F - F*."""
    if np.isfinite(seconds(runs)):
        return f"{seconds(runs):.1f}"
    return f"ends at {np.mean([points[-1].gap for points in runs]):.1e}"


def methods(study: Study, tuned: dict[str, Tuned], seeds: int) -> str:
    """Messages and seconds to F - F* <= 1e-3 and 1e-4, and the figure."""
    asked = [(name, seed) for name in METHODS for seed in range(seeds)]
    all_points = study.curves([study.words(name, tuned[name], seed) for name, seed in asked])
    found = {name: [p for (n, _), p in zip(asked, all_points, strict=True) if n == name] for name in METHODS}
    barrier = seconds(found[BARRIER])
    rows = []
    for name, runs in found.items():
        ratio = f"{seconds(runs) / barrier:.2f}" if np.isfinite(seconds(runs)) else "-"
        last = f"{np.mean([points[-1].gap for points in runs]):.1e}"
        rate = [f"{tuned[name].step:g}", f"{tuned[name].decay:g}"]
        rows.append([name, *rate, *cells(runs, NEAR), *cells(runs, GOAL), ratio, last])
    draw(found)
    goals = [head for gap in (NEAR, GOAL) for head in (f"calls to {gap:g}", "seconds")]
    return markdown(["method", "step", "decay", *goals, f"of {BARRIER.replace(',', '')}", "end"], rows)


def draw(found: dict[str, list[list[Point]]]) -> None:
    with figure(1, 2, 3.4, 2.8) as (made, axes):
        for number, (name, runs) in enumerate(found.items()):
            points = [point for point in runs[0][1:] if np.isfinite(point.gap)]
            so_far = np.minimum.accumulate([point.gap for point in points])
            for axis, x in zip(axes, ("seconds", "calls"), strict=True):
                label = name if axis is axes[0] else None
                axis.plot([getattr(p, x) for p in points], so_far, label=label, **line_style(number))  # type: ignore[arg-type]
        for axis, x in zip(axes, ("time on the virtual clock (s)", "messages to the server"), strict=True):
            axis.axhline(GOAL, color="grey", linewidth=0.8, linestyle=":")
            log_scale(axis.yaxis)
            axis.set_ylim(7e-5, 0.3)
            axis.set_xlabel(x)
        axes[0].set_ylabel("least F - F* so far")
        for axis in axes:
            log_scale(axis.xaxis, compact)
        made.legend(loc="outside right center")
        save(made, OUT / "async_logistic")


def speeds(study: Study, tuned: dict[str, Tuned], seeds: int) -> str:
    """SVRG with and without a barrier, by the speeds; and by what else may matter, seed 0. Twice as far as the others,
    if need be."""
    both = (BARRIER, FREE)
    asked: dict[str, list[tuple[Any, ...]]] = {
        name: [(seed, LOCAL, f"network.compute.slow={list(factors)}") for seed in range(seeds)]
        for name, factors in SPEEDS.items()
    }
    asked |= {f"p = {p}": [(0, p)] for p in COUNTS} | {name: [(0, LOCAL, *CHANGED[name])] for name in CHANGED}
    runs = [(name, method, each) for name in asked for each in asked[name] for method in both]
    found = study.curves([study.words(method, tuned[method], *each) for _, method, each in runs], 2 * ALLOWED)
    rows = []
    for name in asked:
        waits, free = ([p for r, p in zip(runs, found, strict=True) if r[:2] == (name, method)] for method in both)
        ratio = f"{seconds(waits) / seconds(free):.2f}" if np.isfinite(seconds(waits) + seconds(free)) else "-"
        factors = SPEEDS.get(name, ())
        theory = f"{10 * max(factors) / (1.5 * (sum(factors) + 10 - len(factors))):.2f}" if factors else "-"
        rows.append([name, end(waits), end(free), ratio, theory])
    return markdown(["", BARRIER, FREE, "times faster", "theory"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Asynchronous methods: tables and a figure in outputs/figures.")
    parser.add_argument("--root", default="data", help="the folder of a9a and a9a.t")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    try:
        study = Study(given.root)
    except UserError as error:
        sys.exit(f"Skipped: {error}")
    tuned = study.tune()
    text = f"F* = {study.best:.8f}\n\n{methods(study, tuned, given.seeds)}\n\n{speeds(study, tuned, 3)}\n"
    write_atomic(OUT / "async_logistic.md", text)
    print(text)


if __name__ == "__main__":
    main()
