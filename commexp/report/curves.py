"""Curves of runs: what is minimised, accuracy (or test RMSE, distance to the optimum) against work, bytes and time; and
the squared gradient norm against bits per worker, as papers on compressed methods print it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from commexp.metrics import metric, shown
from commexp.report.bands import band, told
from commexp.report.bits import BITS
from commexp.report.looks import Look, looks
from commexp.report.style import (
    bits_axis,
    bytes_axis,
    columns_that_fit,
    count_axis,
    figure,
    log_scale,
    note,
    percent_axis,
    save,
)
from commexp.report.thin import thinned
from commexp.run_folder import Run, on_clocks

FAR = 5  # times as far as the shortest line goes the longest: where that is more, both are seen on a log scale
FARTHER = 1000  # the same of the least positive value and the greatest, where others are zero and have no place on it
Frames = Mapping[str, Sequence[pd.DataFrame]]  # tables of the runs of each method


def draw_curves(
    groups: Mapping[str, Sequence[Run]], path: Path, title: str | None = None, kind: str = "std"
) -> list[Path]:
    """One line per entry of ``groups``: the mean over its runs (seeds), with the band ``kind``, see bands.py. Where all
    runs have an objective, it stands in for the train loss; time on this machine is drawn beside the virtual clock
    where there are calls to a server. Runs of real processes have no other clock: beside simulated ones both share an
    axis."""
    frames, columns, everywhere = tables(groups)
    replaced = {m.replaces for m in shown("curves") if m.name in everywhere}
    rows = [m.name for m in shown("curves") if m.name in columns - replaced]
    work = [m.name for m in shown("work") if m.name in everywhere]
    across = [*work[-1:], "bytes_sent", "sim_seconds"] if work else ["step", "bytes_sent", "sim_seconds"]
    simulated = not any(run.on_wall_clock for runs in groups.values() for run in runs)
    across += ["wall_seconds"] if "calls" in columns and simulated else []
    return _draw(frames, looks(groups), rows, across, path, title, {"sim_seconds": clock_label(groups)}, kind)


def draw_bits(
    groups: Mapping[str, Sequence[Run]], path: Path, title: str | None = None, kind: str = "std"
) -> list[Path]:
    """The same of the squared gradient norm and, where F* is known, of F - F*, both on logarithmic scales, against the
    bits that a worker sends, and, where some come back, against both together. Nothing is drawn where no run
    has the gradient's norm. A value of exactly zero ends a line."""
    frames, columns, everywhere = tables(groups)
    rows = [name for name in ("stationarity", "excess_loss") if name in columns]
    if "stationarity" not in rows or not {*BITS} <= everywhere:
        return []
    down = any(frame["bits_down"].max() > 0 for each in frames.values() for frame in each)
    frames = {
        name: [f.assign(**{row: f[row].where(f[row] > 0) for row in rows if row in f}) for f in each]
        for name, each in frames.items()
    }
    across = ["bits_up", "bits_both"] if down else ["bits_up"]
    labels = {"excess_loss": "F(x) \N{MINUS SIGN} F*"}
    return _draw(frames, looks(groups), rows, across, path, title, labels, kind)


def tables(groups: Mapping[str, Sequence[Run]]) -> tuple[dict[str, list[pd.DataFrame]], set[str], set[str]]:
    """By method, those of its runs that have been evaluated; the columns that any of them has, and those that all
    have."""
    frames = {name: thinned([f for r in runs if not (f := r.metrics).empty]) for name, runs in groups.items()}
    frames = {name: f for name, f in frames.items() if f}
    each = [frame for runs in frames.values() for frame in runs]
    columns = {str(name) for frame in each for name in frame.columns}
    return frames, columns, set.intersection(*({*map(str, frame.columns)} for frame in each)) if each else columns


def _draw(
    frames: Frames,
    look: Mapping[str, Look],
    rows: Sequence[str],
    across: Sequence[str],
    path: Path,
    title: str | None,
    labels: Mapping[str, str],
    kind: str,
) -> list[Path]:
    """A panel for each column of ``rows`` against each of ``across``; ``labels``: of those that are not called by
    their metric's."""
    if not rows:  # nothing has been evaluated yet
        return []
    log = {x: is_far(frames, x) for x in across}
    width, height = (3.1, 2.4) if len(across) > 1 else (4.6, 3.0)
    with figure(len(rows), len(across), width, height, share_rows=True, share_columns=True) as (made, axes):
        for i, column in enumerate(rows):
            up = spans_decades(frames, column)
            row = dict(zip(across, axes[i * len(across) :], strict=False))
            for x, axis in row.items():
                draw_lines(axis, frames, look, x, column, kind, log[x], up)
            for x, axis in row.items():  # within the limits of them all
                dress(axis, x, column, i == len(rows) - 1, x == across[0], log[x], up)
                if x in labels and i == len(rows) - 1:
                    axis.set_xlabel(labels[x])
                if column in labels and x == across[0]:
                    axis.set_ylabel(labels[column])
        if len(frames) > 1:
            handles = [axes[0].plot([], [], label=name, **look[name].line)[0] for name in frames]
            fitting = columns_that_fit(frames, width * len(across))
            made.legend(handles=handles, loc="outside upper center", ncols=fitting)
        note(made, told(kind, map(len, frames.values())))
        if title:
            made.suptitle(title, fontsize=9)
        return save(made, path)


def clock_label(groups: Mapping[str, Sequence[Run]]) -> str:
    """Of ``sim_seconds``: whether it is virtual or real, and what is in it."""
    runs = [run for each in groups.values() for run in each]
    real, counted = {run.on_wall_clock for run in runs}, on_clocks(runs)
    label = (
        "time (s)" if real == {True} else "time, virtual or real (s)" if True in real else metric("sim_seconds").axis
    )
    return f"{label}\n{counted}" if counted else label


def is_far(frames: Frames, x: str) -> bool:
    """Whether a horizontal axis is logarithmic: where one line ends much further on than another, and one of bytes also
    where a line itself goes much further than to its first evaluation."""
    values = [[frame[x].to_numpy(float) for frame in each if x in frame] for each in frames.values()]
    ends = [max(float(one[-1]) for one in each) for each in values if each]
    starts = [float(one[one > 0].min()) for each in values for one in each if (one > 0).any()]
    least = [*ends, *(starts if metric(x).scale == "bytes" else [])]
    return bool(least) and 0 < FAR * min(least) < max(ends)


def spans_decades(frames: Frames, column: str) -> bool:
    """Whether a vertical axis is logarithmic: where values of a ``column`` that is no share span more than a factor of
    five. Zeros, which have no place there, are left out where it is a thousand."""
    having = [frame[column].to_numpy(float) for each in frames.values() for frame in each if column in frame]
    values = np.concatenate([np.empty(0), *having])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if metric(column).scale == "percent" or not len(positive) or (values < 0).any():
        return False
    return bool(positive.max() > (FAR if len(positive) == len(values) else FARTHER) * positive.min())


def draw_lines(
    axis: Axes, frames: Frames, look: Mapping[str, Look], x: str, column: str, kind: str, log: bool, up: bool
) -> None:
    """One line per method that has the column. ``log``, ``up``: whether the axes are logarithmic."""
    for name, each in frames.items():
        having = [frame for frame in each if column in frame and x in frame]
        if having:
            draw_line(axis, having, x, column, look[name].line, name, log, up, kind)


def draw_line(
    axis: Axes,
    frames: Sequence[pd.DataFrame],
    x: str,
    column: str,
    style: Mapping[str, Any],
    name: str = "",
    log: bool | None = None,
    up: bool = False,
    kind: str = "range",
) -> None:
    """Mean and band over ``frames`` of one method. ``style``: colour and dashes. ``log``, ``up``: whether x and the
    column have logarithmic axes, where zero has no place; if not given, one of bytes has. ``kind``: see bands.py."""
    shortest = min(len(f) for f in frames)
    values = np.stack([f[column].to_numpy(float)[:shortest] for f in frames], axis=1)
    at = np.stack([f[x].to_numpy(float)[:shortest] for f in frames], axis=1).mean(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = values.mean(axis=1)
    keep = np.abs(mean) < math.inf  # a diverged run ends in NaN
    keep &= at > 0 if (metric(x).scale == "bytes" if log is None else log) else at >= 0
    keep &= mean > 0 if up else True
    axis.plot(at[keep], mean[keep], label=name or None, marker="." if keep.sum() == 1 else "", **style)
    if len(frames) > 1:
        low, high = band(values[keep], kind)
        if up:  # where a band reaches down to zero, it is cut off by the axis, which does not follow it
            low = np.where(low > 0.1 * values[keep].min(axis=1), low, 0.0)
        axis.fill_between(at[keep], low, high, color=style["color"], alpha=0.15, linewidth=0)


def dress(
    axis: Axes,
    x: str,
    column: str,
    last_row: bool = True,
    first_column: bool = True,
    log: bool = False,
    up: bool | None = None,
) -> None:
    """Scales and labels, as the entries of ``x`` and ``column`` say. ``log``, ``up``: whether x and the column have
    logarithmic axes; the latter where the lines allow it if not given."""
    across, upwards = metric(x), metric(column)
    if not any(len(line.get_xdata()) for line in axis.get_lines()):  # type: ignore[arg-type]
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
    if first_column:
        axis.set_ylabel(upwards.axis)
    if upwards.scale == "percent":
        percent_axis(axis, upwards.axis if first_column else "")
        low, high = axis.get_ylim()  # a band may go beyond what a share can be
        axis.set_ylim(max(low, -0.02), min(high, 1.02))
    elif up is None:
        if all((line.get_ydata() > 0).all() for line in axis.get_lines()):  # type: ignore[operator,union-attr]
            log_scale(axis.yaxis)
    elif upwards.scale == "bytes":
        bytes_axis(axis.yaxis)
    elif up:
        log_scale(axis.yaxis, least=0)
