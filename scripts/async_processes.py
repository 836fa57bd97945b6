"""Asynchronous methods in real processes, compared with the virtual clock: python scripts/async_processes.py

A server and four workers under commexp launch=torchrun with launch.inject=true: a gradient takes 5 ms, for worker 0
ten times as long. Logistic regression on breast_cancer; all steps are tuned on the virtual clock. Writes the table and
the figure async_processes.{md,png,pdf} into outputs/figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize

from commexp.api import compose_config
from commexp.check.batch import result, run_all
from commexp.config.plan import prepare
from commexp.experiment.setup import ExperimentSetup
from commexp.report.style import figure, line_style, log_scale, save
from commexp.report.tables import markdown
from commexp.run_folder import Run, write_atomic

OUT = Path("outputs/figures")
COMMON = ["+experiment=async_logistic_breast_cancer", "workers=4", "algo.solver=svrg", "batch_size=16", "model.l2=0.01"]
COMMON += ["network.compute.seconds=0.005", "network.compute.slow=[10]", "partition=iid"]
REAL = ["launch=torchrun", "launch.nproc=5", "launch.inject=true"]
FIVE = "algo.iterations=5"
METHODS = {
    "async_ps": ["algo=async_ps", FIVE, "rounds=600", "eval_every=6"],
    "sync_ps": ["algo=sync_ps", FIVE, "rounds=60", "eval_every=1"],
    "ssp": ["algo=ssp", FIVE, "rounds=240", "eval_every=4"],
    "async_sgd": ["algo=async_sgd", "rounds=3000", "eval_every=30"],
}
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
GOAL = 1e-3


def words(name: str, step: float) -> list[str]:
    return [*COMMON, *METHODS[name], f"algo.lr={step:g}"]


@cache
def least() -> float:
    """F at its minimum, by L-BFGS."""
    made = ExperimentSetup(prepare(compose_config(words("sync_ps", 0.1))), torch.device("cpu"), Run(OUT / "none"))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = made.problem.training_gradient(torch.from_numpy(x))
        return value, gradient.numpy()

    start = np.zeros(made.problem.dim)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000})
    return float(found.fun)


def gaps(run: Run) -> tuple[pd.Series[float], pd.Series[float]]:
    """The seconds and F - F* of each evaluation."""
    return run.metrics["sim_seconds"], run.metrics["objective"] - least()


def reached(run: Run) -> tuple[float, float]:
    """Seconds and messages after which F - F* stays below the goal; infinite if it never does."""
    above = np.flatnonzero(gaps(run)[1] > GOAL)
    if len(above) and above[-1] + 1 == len(run.metrics):
        return np.inf, np.inf
    row = run.metrics.iloc[above[-1] + 1]
    return float(row["sim_seconds"]), float(row["calls"])


def real(command: Sequence[str]) -> Run:
    subprocess.run([sys.executable, "-m", "commexp", *command, *REAL], check=True, stdout=subprocess.DEVNULL)
    return Run(Path("outputs/runs") / prepare(compose_config([*command, *REAL])).name)


def main() -> None:
    run_all(words(name, step) for name in METHODS for step in STEPS)
    steps = {name: min(STEPS, key=lambda step: reached(result(words(name, step)))) for name in METHODS}
    runs = {name: (result(words(name, step)), real(words(name, step))) for name, step in steps.items()}
    rows = []
    for name, both in runs.items():
        (virtual, calls), (wall, real_calls) = map(reached, both)
        cells = [f"{virtual:.2f}", f"{wall:.2f}", f"{wall / virtual:.2f}", f"{calls:,.0f}", f"{real_calls:,.0f}"]
        rows.append([name, f"{steps[name]:g}", *cells])
    order = [sorted(runs, key=lambda name: reached(runs[name][k])) for k in (0, 1)]
    heads = ["method", "step", "virtual s", "wall s", "wall / virtual", "calls", "calls, real"]
    text = f"F* = {least():.8f}, F - F* <= {GOAL:g} from then on, {os.cpu_count()} cores\n\n{markdown(heads, rows)}\n"
    text += f"order on the virtual clock: {', '.join(order[0])}\norder in processes: {', '.join(order[1])}\n"
    write_atomic(OUT / "async_processes.md", text)
    print(text)
    with figure(1, 1, 5.6, 3.4) as (made, (axis,)):
        for number, (name, both) in enumerate(runs.items()):
            style = {**line_style(number), "linestyle": "-"}
            for run, look, label in ((both[0], ":", None), (both[1], "-", name)):
                seconds, gap = gaps(run)
                axis.plot(seconds, gap, label=label, **{**style, "linestyle": look})  # type: ignore[arg-type]
        axis.plot([], [], "k-", linewidth=1, label="real processes, wall clock")
        axis.plot([], [], "k:", linewidth=1.3, label="virtual clock")
        axis.axhline(GOAL, color="grey", linewidth=0.8)
        log_scale(axis.yaxis)
        shown = 1.3 * max(reached(run)[0] for both in runs.values() for run in both)
        axis.set(xlabel="seconds", ylabel="F - F*", ylim=(1e-5, None), xlim=(0, shown))
        made.legend(loc="outside right center")
        save(made, OUT / "async_processes")


if __name__ == "__main__":
    main()
