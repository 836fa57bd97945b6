"""Curves of runs: what is minimised, accuracy (or test RMSE, distance to the optimum) against work, bytes and time; and
the squared gradient norm against bits per worker, as papers on compressed methods print it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from commexp.metrics import metric, shown
from commexp.report.bits import BITS
from commexp.report.style import bits_axis, bytes_axis, count_axis, figure, line_style, log_scale, percent_axis, save
from commexp.report.thin import thinned
from commexp.run_folder import Run, on_clocks

FAR = 5  # times as far as the shortest line goes the longest: where that is more, both are seen on a log scale
Frames = Mapping[str, Sequence[pd.DataFrame]]  # tables of the runs of each method


def draw_curves(groups: Mapping[str, Sequence[Run]], path: Path, title: str | None = None) -> list[Path]:
    """One line per entry of ``groups``: the mean over its runs (seeds), with their range as a band. Where all runs have
    an objective, it stands in for the train loss; time on this machine is drawn beside the virtual clock where there
    are calls to a server. Runs of real processes have no other clock: beside simulated ones both share an axis."""
    frames, columns, everywhere = _tables(groups)
    replaced = {m.replaces for m in shown("curves") if m.name in everywhere}
    rows = [m.name for m in shown("curves") if m.name in columns - replaced]
    work = [m.name for m in shown("work") if m.name in everywhere]
    across = [*work[-1:], "bytes_sent", "sim_seconds"] if work else ["step", "bytes_sent", "sim_seconds"]
    real = {run.on_wall_clock for runs in groups.values() for run in runs}
    counted = on_clocks(run for runs in groups.values() for run in runs)
    across += ["wall_seconds"] if "calls" in columns and real == {False} else []
    return _draw(frames, rows, across, path, title, {"sim_seconds": _clock_label(real, counted)})


def draw_bits(groups: Mapping[str, Sequence[Run]], path: Path, title: str | None = None) -> list[Path]:
    """The same of the squared gradient norm and, where F* is known, of F - F*, both on logarithmic scales, against the
    bits that a worker sends, and, where some come back, against both together. Nothing is drawn where no run
    has the gradient's norm. A value of exactly zero ends a line."""
    frames, columns, everywhere = _tables(groups)
    rows = [name for name in ("stationarity", "excess_loss") if name in columns]
    if "stationarity" not in rows or not {*BITS} <= everywhere:
        return []
    down = any(frame["bits_down"].max() > 0 for each in frames.values() for frame in each)
    frames = {
        name: [f.assign(**{row: f[row].where(f[row] > 0) for row in rows if row in f}) for f in each]
        for name, each in frames.items()
    }
    across = ["bits_up", "bits_both"] if down else ["bits_up"]
    return _draw(frames, rows, across, path, title, {"excess_loss": "F(x) \N{MINUS SIGN} F*"})


def _tables(groups: Mapping[str, Sequence[Run]]) -> tuple[dict[str, list[pd.DataFrame]], set[str], set[str]]:
    """By method, those of its runs that have been evaluated; the columns that any of them has, and those that all
    have."""
    frames = {name: thinned([f for r in runs if not (f := r.metrics).empty]) for name, runs in groups.items()}
    frames = {name: f for name, f in frames.items() if f}
    tables = [frame for each in frames.values() for frame in each]
    columns = {str(name) for frame in tables for name in frame.columns}
    return frames, columns, set.intersection(*({*map(str, frame.columns)} for frame in tables)) if tables else columns


def _draw(
    frames: Frames,
    rows: Sequence[str],
    across: Sequence[str],
    path: Path,
    title: str | None,
    labels: Mapping[str, str] | None = None,
) -> list[Path]:
    """A panel for each column of ``rows`` against each of ``across``; ``labels``: of those that are not called by
    their metric's."""
    if not rows:  # nothing has been evaluated yet
        return []
    log = {x: metric(x).scale == "bytes" or _far_apart(frames, x) for x in across}
    width, height = (3.1, 2.4) if len(across) > 1 else (4.6, 3.0)
    with figure(len(rows), len(across), width, height) as (made, axes):
        for i, column in enumerate(rows):
            row = dict(zip(across, axes[i * len(across) :], strict=False))
            for x, axis in row.items():
                for k, each in enumerate(frames.values()):
                    having = [frame for frame in each if column in frame]
                    if having:
                        draw_line(axis, having, x, column, k, log=log[x])
            spans = [axis.yaxis.get_data_interval() for axis in row.values()]
            least = 1 if any(0 < 5 * low < high for low, high in spans) else 5  # all of a row have the same scale
            for x, axis in row.items():
                dress(axis, x, column, i == len(rows) - 1, x == across[0], log[x], least)
                if labels and x in labels and i == len(rows) - 1:
                    axis.set_xlabel(labels[x])
                if labels and column in labels and x == across[0]:
                    axis.set_ylabel(labels[column])
        if len(frames) > 1:
            handles = [axes[0].plot([], [], label=name, **line_style(k))[0] for k, name in enumerate(frames)]  # type: ignore[arg-type]
            letters = int(min(120, 13 * width * len(across)))
            columns_that_fit = max(1, letters // (8 + max(map(len, frames))))
            made.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles), columns_that_fit))
        if title:
            made.suptitle(title, fontsize=9)
        return save(made, path)


def _clock_label(real: set[bool], counted: str) -> str:
    """``real``: whether runs are on the wall clock. ``counted``: see ``on_clocks``."""
    label = (
        "time (s)" if real == {True} else "time, virtual or real (s)" if True in real else metric("sim_seconds").axis
    )
    return f"{label}\n{counted}" if counted else label


def _far_apart(frames: Frames, x: str) -> bool:
    """Whether one line ends much further on than another."""
    ends = [max(float(frame[x].iloc[-1]) for frame in each) for each in frames.values()]
    return bool(ends) and 0 < FAR * min(ends) < max(ends)


def draw_line(
    axis: Axes, frames: Sequence[pd.DataFrame], x: str, column: str, number: int, name: str = "", log: bool = False
) -> None:
    """Mean and range over ``frames`` of one method; squared where the column's entry says so. ``log``: of x."""
    power = 2 if metric(column).squared else 1
    shortest = min(len(f) for f in frames)
    values = pd.concat([f[column].iloc[:shortest] ** power for f in frames], axis=1)
    at = pd.concat([f[x].iloc[:shortest] for f in frames], axis=1).mean(axis=1)
    style = line_style(number)
    mean = values.mean(axis=1)
    keep = (at > 0 if log or metric(x).scale == "bytes" else at >= 0) & mean.abs().lt(
        math.inf
    )  # a diverged run ends in NaN
    mean = mean[keep]
    axis.plot(at[keep], mean, label=name or None, marker="." if keep.sum() == 1 else "", **style)  # type: ignore[arg-type]
    if len(frames) > 1:
        axis.fill_between(
            at[keep], values.min(axis=1)[keep], values.max(axis=1)[keep], color=style["color"], alpha=0.15
        )


def dress(
    axis: Axes,
    x: str,
    column: str,
    last_row: bool = True,
    first_column: bool = True,
    log: bool = False,
    least: float = 5,
) -> None:
    """Scales and labels, as the entries of ``x`` and ``column`` say. ``log``: of x. ``least``: see log_scale, of y."""
    across, up = metric(x), metric(column)
    if not any(len(line.get_xdata()) for line in axis.get_lines()):  # type: ignore[arg-type]
        axis.set(xticks=[], yticks=[])
        axis.text(0.5, 0.5, "no finite value", ha="center", transform=axis.transAxes)
        return
    if across.scale == "bytes":
        bytes_axis(axis.xaxis)
    elif across.scale == "bits":
        bits_axis(axis.xaxis, log)
    elif across.scale == "count":
        count_axis(axis.xaxis, log)
    elif log:
        log_scale(axis.xaxis)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if last_row:
        axis.set_xlabel(across.axis)
    if up.scale == "percent":
        percent_axis(axis, up.axis if first_column else "")
        return
    if all((line.get_ydata() > 0).all() for line in axis.get_lines()):  # type: ignore[operator,union-attr]
        log_scale(axis.yaxis, least=least)
    if first_column:
        axis.set_ylabel(up.axis)
