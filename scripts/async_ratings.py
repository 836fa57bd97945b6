"""Asynchronous matrix factorisation, a table: python scripts/async_ratings.py [--root FOLDER]

MovieLens, one worker of 8 ten times slower: test RMSE, and the time to reach it
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from commexp.check.batch import result, run_all
from commexp.config.messages import UserError
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
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
        return "+experiment=async_movielens", *given, f"algo.lr={step:g}", f"seed={seed}", f"dataset.root={root}"

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
    parser = argparse.ArgumentParser(description="Asynchronous methods on ratings: a table in outputs/figures.")
    parser.add_argument("--root", default=".", help="the folder that holds data/ml-latest-small")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    try:
        ratings(given.root, given.seeds)
    except UserError as error:
        print(f"Skipped: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
