"""Methods that do not wait, in tables and a picture: python scripts/async_study.py [--root FOLDER] [--ratings FOLDER]

async_logistic   a9a, 10 workers 1 to 10 times as slow as the first: time and messages to a small F - F*
async_ratings    MovieLens, one worker of 8 ten times slower: test RMSE, and time to it
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
from typing import NamedTuple

import numpy as np
import torch
from batch import result, run_all
from sklearn.linear_model import LogisticRegression

from commexp.algorithms.asynchronous import Asynchronous
from commexp.api import compose_config
from commexp.config import prepare
from commexp.refusals import UserError
from commexp.report.style import compact, figure, line_style, log_scale, save
from commexp.report.tables import markdown
from commexp.rundir import Run, write_atomic
from commexp.trial import Trial

OUT = Path("outputs/figures")
STEPS = (0.1, 0.4, 1.0, 2.0)
TRIED, ALLOWED = 15_000, 400_000  # gradients of a batch, of all workers: of a run for tuning, and of the others
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
ONE_SLOW = "async_ps, svrg, one slow"  # nine alike, and one ten times slower: sync_ps takes as long as before


class Point(NamedTuple):
    gap: float
    seconds: float
    calls: int


def words_of(words: Sequence[str]) -> list[str]:
    return ["+experiment=async_logistic", *words]


def trial(words: Sequence[str]) -> Trial:
    return Trial(prepare(compose_config(words_of(words))), torch.device("cpu"), Run(OUT / "none"))


def objective(made: Trial, x: torch.Tensor) -> float:
    return made.problem.training_gradient(x)[0]


@cache
def least(root: str) -> float:
    """F at scikit-learn's solution of the same problem, F the mean of the workers' means."""
    made = trial([f"dataset.root={root}"])
    problem = made.problem.problems[0]  # type: ignore[attr-defined]
    signed, shares = problem.margins.signed.toarray(), problem.shares.numpy()
    labels = 1 - 2 * (np.arange(len(signed)) % 2)  # a sample and its mirror image have the same loss
    strength = 1 / (problem.l2 * len(signed))
    model = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    model.fit(signed * labels[:, None], labels, sample_weight=shares * len(signed))
    return objective(made, torch.from_numpy(model.coef_[0]))


def curve(words: Sequence[str], best: float, gradients: float) -> list[Point]:
    """See ``measured``; what is finished is used again."""
    key = hashlib.sha256(json.dumps([prepare(compose_config(words_of(words))).name, gradients]).encode()).hexdigest()
    kept = OUT / "async_logistic" / f"{key[:16]}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps(measured(words, best, gradients)))
    return [Point(*numbers) for numbers in json.loads(kept.read_text(encoding="utf-8"))]


def measured(words: Sequence[str], best: float, gradients: float) -> list[Point]:
    """To the goal, or as far as so many gradients lead, or until it stands still: until the last half of them, and at
    least 20,000, has brought less than a tenth."""
    torch.set_num_threads(1)
    made = trial(words)
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
            points.append(Point(objective(made, method.model()) - best, made.books.clock.now, sum(method.calls)))
            lowest[spent] = min(points[-1].gap, *lowest.values())
            half = [gap for at, gap in lowest.items() if at <= spent / 2]
            if spent >= 40_000 and lowest[spent] > 0.9 * half[-1]:
                break
    return points


def words(name: str, step: float, seed: int, root: str) -> tuple[str, ...]:
    given = (*METHODS["async_ps, svrg"], "network.compute.slow=[10]") if name == ONE_SLOW else METHODS[name]
    return (*given, f"algo.lr={step:g}", f"seed={seed}", f"dataset.root={root}")


def curves(commands: Sequence[tuple[str, ...]], best: float, gradients: float) -> list[list[Point]]:
    found = []
    with get_context("spawn").Pool(2) as pool:
        for points in pool.imap(partial(curve, best=best, gradients=gradients), commands):
            found.append(points)
            print(f"\r{len(found)} of {len(commands)} runs", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def first(points: Iterable[Point], gap: float) -> Point | None:
    return next((point for point in points if point.gap <= gap), None)


def cost(points: Sequence[Point]) -> tuple[float, float]:
    """Seconds to the goal; among those that do not get there, the most of F - F* over the last quarter."""
    there = first(points, GOAL)
    worst = max(point.gap if np.isfinite(point.gap) else np.inf for point in points[-max(1, len(points) // 4) :])
    return (there.seconds, 0.0) if there else (np.inf, worst)


def reached(found: Sequence[Sequence[Point]], gap: float) -> tuple[float, float] | None:
    """Mean seconds and messages, where all seeds get there."""
    there = [point for points in found if (point := first(points, gap))]
    if len(there) < len(found):
        return None
    return float(np.mean([point.seconds for point in there])), float(np.mean([point.calls for point in there]))


def logistic(root: str, seeds: int) -> None:
    """a9a: seconds on the virtual clock and messages to F - F* <= 1e-3 and 1e-4, and the way there."""
    best = least(root)
    tried = [(name, step) for name in METHODS for step in STEPS]
    tuning = dict(zip(tried, curves([words(*each, 0, root) for each in tried], best, TRIED), strict=True))
    steps = {name: min(STEPS, key=lambda step: cost(tuning[name, step])) for name in METHODS}
    steps[ONE_SLOW] = steps["async_ps, svrg"]
    asked = [(name, seed) for name in steps for seed in range(seeds)]
    all_points = curves([words(name, steps[name], seed, root) for name, seed in asked], best, ALLOWED)
    found: dict[str, list[list[Point]]] = {name: [] for name in steps}
    for (name, _), points in zip(asked, all_points, strict=True):
        found[name].append(points)
    barrier = reached(found["sync_ps, svrg"], GOAL)
    rows = []
    for name, runs in found.items():
        cells = []
        for gap in (NEAR, GOAL):
            at = reached(runs, gap)
            cells += [f"{at[1]:,.0f}", f"{at[0]:.1f}"] if at else ["-", "-"]
        ratio = f"{at[0] / barrier[0]:.2f}" if at and barrier else "-"
        rows.append([name, f"{steps[name]:g}", *cells, ratio, f"{np.mean([points[-1].gap for points in runs]):.1e}"])
    heads = [
        "method",
        "step",
        f"calls to {NEAR:g}",
        "seconds",
        f"calls to {GOAL:g}",
        "seconds",
        "of sync_ps svrg",
        "end",
    ]
    text = f"F* = {best:.8f}\n\n{markdown(heads, rows)}\n"
    write_atomic(OUT / "async_logistic.md", text)
    print(text)
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


RATINGS = {
    "async_ps": ("algo=async_ps", "rounds=480", "eval_every=16"),
    "sync_ps": ("algo=sync_ps", "rounds=60", "eval_every=2"),
    "one machine, sgd": ("algo=sgd", "workers=1", "rounds=500", "eval_every=10", "network.compute.slow=[]"),
}
RATES = (30.0, 100.0)


def ratings(root: str, seeds: int) -> None:
    """MovieLens: test RMSE, and when it is within 1 % of one machine's."""

    def command(name: str, step: float, seed: int) -> tuple[str, ...]:
        given = RATINGS[name]
        return "+experiment=async_ratings", *given, f"algo.lr={step:g}", f"seed={seed}", f"dataset.root={root}"

    run_all(command(name, step, 0) for name in RATINGS for step in RATES)
    runs = {(name, step): result(command(name, step, 0)) for name in RATINGS for step in RATES}

    def error(run: Run) -> float:
        return float(run.metrics["test_rmse"].iloc[-1]) if run.status == "completed" else np.inf

    steps = {name: min(RATES, key=lambda step: error(runs[name, step])) for name in RATINGS}
    run_all(command(name, step, seed) for name, step in steps.items() for seed in range(seeds))
    frames = {n: [result(command(n, step, seed)).metrics for seed in range(seeds)] for n, step in steps.items()}
    goal = 1.01 * float(np.mean([frame["test_rmse"].iloc[-1] for frame in frames["one machine, sgd"]]))
    rows = []
    for name, found in frames.items():
        ends = [frame["test_rmse"].iloc[-1] for frame in found]
        times = [frame["sim_seconds"][frame["test_rmse"] <= goal].min() for frame in found]
        last = np.mean([frame["sim_seconds"].iloc[-1] for frame in found])
        cells = [f"{np.mean(ends):.4f}", f"{min(ends):.4f} to {max(ends):.4f}"]
        there = "-" if np.isnan(times).any() else f"{np.mean(times):.1f}"
        rows.append([name, f"{steps[name]:g}", *cells, there, f"{last:.1f}"])
    heads = ["method", "step", "test RMSE", "least and most", f"seconds to {goal:.4f}", "seconds in all"]
    text = markdown(heads, rows) + "\n"
    write_atomic(OUT / "async_ratings.md", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Methods that do not wait: tables and a picture in outputs/figures.")
    parser.add_argument("--root", default="data", help="where a9a and a9a.t lie")
    parser.add_argument("--ratings", default=".", help="the folder that holds data/ml-latest-small")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for study, root in ((logistic, given.root), (ratings, given.ratings)):
        try:
            study(root, given.seeds)
        except UserError as error:
            print(f"{study.__name__} is left out: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
