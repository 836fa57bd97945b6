"""1-bit gradient coding compared with other methods, tables and figures: python scripts/coding_study.py [WORD ...]

onebit_linreg         excess loss against bytes and against time, by copies d and share p of late workers
onebit_images_small   accuracy of a classifier against bytes and against time

WORDs such as dataset.condition=1 apply to every run of the regression.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from commexp.check.batch import result, run_all
from commexp.metrics import human_bytes
from commexp.report.curves import draw_line, dress
from commexp.report.style import compact, figure, line_style, save
from commexp.report.tables import markdown
from commexp.run_folder import write_atomic

OUT = Path("outputs/figures")
SEEDS = range(5)
LATE = (0.1, 0.3, 0.5, 0.8)
COPIES = (1, 2, 5, 10)
#: steps; those beside the best so far are tried until it has a worse one on each side
GRID = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
EQUAL = 0.05  # one step for all, where floors are compared at an equal one
ROUNDS, MESSAGE, WORKERS = 3000, 17, 100
TARGET, ACCURACY = 0.1, 0.9
Cell = TypeVar("Cell")
Words = tuple[str, ...]
more: list[str] = []  # words for every run of the regression


def linreg_methods(share: float = 1.0) -> dict[str, Words]:
    """Each method's words for the experiment onebit_linreg; runs of a tenth of the budget are short."""
    bits = () if share == 1 else (f"rounds={round(1.1 * share * ROUNDS)}",)
    real = ("rounds=500" if share == 1 else f"rounds={round(200 * share)}", "eval_every=1")
    return {
        **{f"1-bit, d = {d}": (f"allocation.d={d}", *bits) for d in COPIES},
        **{f"real-valued, d = {d}": ("compress=none", f"allocation.d={d}", *real) for d in COPIES},
        "sign, error feedback": ("allocation=single", "compress=sign"),
        "ignore": ("algo=ignore", "compress=none", *real),
        "wait": ("algo=wait", "comm.exchange=auto", *real),
    }


def budget(p: float) -> float:
    """Bytes that 1-bit messages take in the whole run, on average; real-valued ones reach them in 128 rounds."""
    return ROUNDS * MESSAGE * WORKERS * (1 - p)


def words(method: str, p: float, step: float, seed: int, share: float = 1.0) -> Words:
    given = linreg_methods(share)[method]
    return "+experiment=onebit_linreg", *more, *given, f"straggler.p={p}", f"algo.lr={step:g}", f"seed={seed}"


@cache
def metrics(command: Words) -> pd.DataFrame | None:
    """None for a run that has diverged."""
    run = result(command)
    return run.metrics if run.status == "completed" else None


def mean_curve(commands: Iterable[Words], column: str, most: float) -> np.ndarray:
    """The mean over runs of a metric at 400 places of ``most`` bytes, evenly, straight lines between evaluations of
    its logarithm; the worst where one has diverged."""
    places, rows = np.linspace(0, most, 401)[1:], []
    for command in commands:
        found = metrics(command)
        if found is None:
            return np.full(len(places), np.inf if column == "excess_loss" else 0.0)
        rows.append(np.exp(np.interp(places, found["bytes_sent"], np.log(found[column]))))
    mean: np.ndarray = np.mean(rows, axis=0)
    return mean


def tuned(
    cells: Sequence[Cell],
    first: Sequence[float],
    command: Callable[[Cell, float], Words],
    cost: Callable[[Cell, float], float],
) -> dict[Cell, float]:
    """The step of GRID that costs each cell least."""
    costs: dict[Cell, dict[float, float]] = {cell: {} for cell in cells}
    asked = {cell: set(first) for cell in cells}
    while any(asked.values()):
        run_all(command(cell, step) for cell in cells for step in sorted(asked[cell]))
        for cell, known in costs.items():
            known.update({step: cost(cell, step) for step in asked[cell]})
            best = GRID.index(min(known, key=known.__getitem__))
            asked[cell] = set(GRID[max(0, best - 1) : best + 2]) - set(known)
    return {cell: min(known, key=known.__getitem__) for cell, known in costs.items()}


def excess(cell: tuple[str, float], step: float, share: float = 1.0, seeds: Iterable[int] = SEEDS) -> np.ndarray:
    """Over the first ``share`` of the budget."""
    method, p = cell
    return mean_curve([words(method, p, step, seed, share) for seed in seeds], "excess_loss", share * budget(p))


def ending(frame: pd.DataFrame | None, column: str) -> float:
    """The mean over a run's last tenth."""
    return float("nan") if frame is None else float(frame[column].iloc[-len(frame) // 10 :].mean())


def mean_log(values: np.ndarray) -> float:
    return float(np.log10(values).mean())


def linreg() -> None:
    """Linear regression among 100 peers: excess loss by bytes and by time, what redundancy and one bit are worth."""
    methods = list(linreg_methods())
    cells = [(method, p) for p in LATE for method in methods]
    coded = [cell for cell in cells if "d =" in cell[0]]
    first = (0.005, 0.01, 0.02)

    def tune(cells: Sequence[tuple[str, float]], share: float) -> dict[tuple[str, float], float]:
        return tuned(
            cells,
            first,
            lambda cell, step: words(*cell, step, 0, share),
            lambda cell, step: mean_log(excess(cell, step, share, [0])),
        )

    steps = tune(cells, 1.0)
    run_all(words(*cell, step, seed) for cell, step in steps.items() for seed in SEEDS)
    early = tune(coded, 0.1)
    run_all(words(*cell, found[cell], seed, 0.1) for found in (steps, early) for cell in coded for seed in SEEDS)
    run_all(words(*cell, EQUAL, 0) for cell in coded)
    floor = {cell: excess(cell, step)[-40:].mean() for cell, step in steps.items()}
    equal = {cell: ending(metrics(words(*cell, EQUAL, 0)), "excess_loss") for cell in coded}
    texts = [
        (
            f"Excess loss, mean of the last tenth of the budget and of {len(SEEDS)} seeds; in brackets the step",
            ["method", *(f"p = {p}" for p in LATE)],
            [[m, *(f"{floor[m, p]:.2g} ({steps[m, p]:g})" for p in LATE)] for m in methods],
        ),
        (
            f"Excess loss, mean of the last tenth of the run, step {EQUAL} throughout, seed 0",
            ["method", *(f"p = {p}" for p in LATE)],
            [[m, *(f"{equal[m, p]:.2g}" for p in LATE)] for m in methods if "d =" in m],
        ),
        *(
            (
                f"Geometric mean of the excess loss over the first tenth of the budget, 1-bit / real-valued, {what}",
                ["d", *(f"p = {p}" for p in LATE)],
                [[str(d), *(against(d, p, found) for p in LATE)] for d in COPIES],
            )
            for what, found in (("steps as above", steps), ("steps tuned for this tenth", early))
        ),
        (
            "The share of the budget up to which 1-bit stays below real-valued, steps tuned for the whole budget",
            ["d", *(f"p = {p}" for p in LATE)],
            [[str(d), *(f"{below(d, p, steps):.0%}" for p in LATE)] for d in COPIES],
        ),
        (
            f"To a mean excess loss of {TARGET}: bytes sent, seconds on the virtual clock",
            ["method", *(f"p = {p}" for p in LATE)],
            [[m, *(to_target(m, p, steps[m, p]) for p in LATE)] for m in methods],
        ),
    ]
    text = "\n".join(f"{title}:\n\n{markdown(heads, rows)}\n" for title, heads, rows in texts)
    write_atomic(OUT / "onebit_linreg.md", text)
    print(text)
    for x, name in (("bytes_sent", "onebit_linreg"), ("sim_seconds", "onebit_linreg_time")):
        draw_linreg(steps, x, OUT / name)


def pair(d: int, p: float) -> tuple[tuple[str, float], tuple[str, float]]:
    return (f"1-bit, d = {d}", p), (f"real-valued, d = {d}", p)


def against(d: int, p: float, steps: dict[tuple[str, float], float]) -> str:
    bits, real = (10 ** mean_log(excess(cell, steps[cell], 0.1)) for cell in pair(d, p))
    return f"{bits:.2g} / {real:.2g}"


def below(d: int, p: float, steps: dict[tuple[str, float], float]) -> float:
    bits, real = (excess(cell, steps[cell]) for cell in pair(d, p))
    crossed = np.flatnonzero(bits >= real)
    return float(crossed[0] / len(bits)) if len(crossed) else 1.0


def to_target(method: str, p: float, step: float) -> str:
    reached = where([words(method, p, step, seed) for seed in SEEDS], "excess_loss", lambda mean: mean <= TARGET)
    return "-" if reached is None else f"{human_bytes(reached[0])}, {reached[1]:.3g} s"


def where(commands: Iterable[Words], column: str, good: Callable[[pd.Series], pd.Series]) -> tuple[float, float] | None:
    """Bytes and seconds of the first evaluation at which the runs' mean is good."""
    frames = [metrics(command) for command in commands]
    drawn = [frame for frame in frames if frame is not None]
    if len(drawn) < len(frames):
        return None
    reached = np.flatnonzero(good(pd.concat([frame[column] for frame in drawn], axis=1).mean(axis=1)))
    if not len(reached):
        return None
    sent, seconds = (float(np.mean([f[c].iloc[reached[0]] for f in drawn])) for c in ("bytes_sent", "sim_seconds"))
    return sent, seconds


#: line styles of those that are drawn, see report/style.py: dashes for the real-valued
DRAWN = {
    **{f"1-bit, d = {d}": i for i, d in enumerate(COPIES)},
    "real-valued, d = 1": 7,
    "real-valued, d = 10": 10,
    "sign, error feedback": 5,
    "ignore": 4,
    "wait": 6,
}


def log_time(axis: Axes, least: float, most: float) -> None:
    axis.set_xscale("log")
    axis.set_xlim(least, most)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """Every evaluation of the first 20 rounds but the start's, then one in ten rounds: a line, not a hedge."""
    kept = (frame["round"] > 0) & ((frame["round"] <= 20) | (frame["round"] % 10 == 0))
    return frame[kept].reset_index(drop=True)


def draw_linreg(steps: dict[tuple[str, float], float], x: str, path: Path) -> None:
    with figure(2, 2, 3.7, 2.7) as (made, axes):
        for i, (axis, p) in enumerate(zip(axes, LATE, strict=True)):
            for method, style in DRAWN.items():
                frames = [metrics(words(method, p, steps[method, p], seed)) for seed in SEEDS]
                drawn = [thinned(frame) for frame in frames if frame is not None]
                draw_line(axis, drawn, x, "excess_loss", line_style(style), method if i == 0 else "")
            dress(axis, x, "excess_loss", last_row=i > 1, first_column=False)
            axis.set_ylim(1e-4, 10)
            axis.set_title(f"late with probability {p}")
            if x == "bytes_sent":
                axis.axvline(budget(p), color="grey", linewidth=0.8, linestyle=":")
                axis.set_xlim(5e3, 2e7)
            else:
                log_time(axis, 0.02, 150)
            if i % 2 == 0:
                axis.set_ylabel("excess loss")
        made.legend(loc="outside right center")
        save(made, path)


def image_methods() -> dict[str, tuple[int, Words]]:
    """A line style for each method, and its words for the experiment onebit_digits."""
    real = ("compress=none", "rounds=150", "eval_every=1")
    return {
        "1-bit, d = 2": (0, ("allocation.d=2",)),
        "1-bit, d = 5": (1, ("allocation.d=5",)),
        "real-valued, d = 2": (7, ("allocation.d=2", *real)),
        "real-valued, d = 5": (8, ("allocation.d=5", *real)),
        "sign, error feedback": (5, ("allocation=single", "compress=sign")),
        "ignore": (4, ("algo=ignore", *real)),
        "wait": (6, ("algo=wait", "comm.exchange=auto", *real)),
        "exact, fractional, d = 5": (2, ("algo=exact_coding", "allocation.d=5", *real)),
        "exact, cyclic, d = 5": (10, ("algo=exact_coding", "allocation=cyclic", "allocation.d=5", *real)),
    }


def images() -> None:
    """A classifier of digits, 20 peers of which half are late: accuracy by bytes and by time."""
    methods = image_methods()

    def command(method: str, step: float, seed: int = 0) -> Words:
        return "+experiment=onebit_digits", *methods[method][1], f"algo.lr={step:g}", f"seed={seed}"

    run_all([command("1-bit, d = 2", 0.1)])
    shortest = result(command("1-bit, d = 2", 0.1)).summary["bytes_sent"]

    def cost(method: str, step: float) -> float:
        return -float(mean_curve([command(method, step)], "test_accuracy", shortest).mean())

    steps = tuned(list(methods), (0.05, 0.1, 0.2), command, cost)
    run_all(command(method, step, seed) for method, step in steps.items() for seed in range(3))
    rows = []
    with figure(1, 2, 3.7, 3.0) as (made, axes):
        for method, (style, _) in methods.items():
            commands = [command(method, steps[method], seed) for seed in range(3)]
            frames = [frame for each in commands if (frame := metrics(each)) is not None]
            drawn = [frame[frame["round"] > 0].reset_index(drop=True) for frame in frames]
            for axis, x in zip(axes, ("bytes_sent", "sim_seconds"), strict=True):
                draw_line(axis, drawn, x, "test_accuracy", line_style(style), method if axis is axes[0] else "")
            reached = where(commands, "test_accuracy", lambda mean: mean >= ACCURACY)
            last = [ending(frame, "test_accuracy") for frame in frames]
            within = mean_curve(commands, "test_accuracy", shortest)[-40:].mean()
            sent = human_bytes(float(np.mean([frame["bytes_sent"].iloc[-1] for frame in frames])))
            there = ["-", "-"] if reached is None else [human_bytes(reached[0]), f"{reached[1]:.3g} s"]
            rows.append([method, f"{steps[method]:g}", f"{within:.1%}", *there, f"{np.mean(last):.1%}", sent])
        for axis, x in zip(axes, ("bytes_sent", "sim_seconds"), strict=True):
            dress(axis, x, "test_accuracy", first_column=axis is axes[0])
            axis.set_ylim(0, 1)
        log_time(axes[1], 0.01, 20)
        axes[0].axvline(shortest, color="grey", linewidth=0.8, linestyle=":")
        made.legend(loc="outside right center")
        save(made, OUT / "onebit_images_small")
    heads = ["method", "step", f"at {human_bytes(shortest)}", f"to {ACCURACY:.0%}: sent", "time", "at its end", "sent"]
    text = markdown(heads, rows) + "\n"
    write_atomic(OUT / "onebit_images_small.md", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="1-bit gradient coding: tables and figures in outputs/figures.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="for every run of the regression")
    more.extend(parser.parse_args().words)
    for draw in (linreg, images):
        print(f"{draw.__name__}: {(draw.__doc__ or '').splitlines()[0]}", file=sys.stderr)
        draw()


if __name__ == "__main__":
    main()
