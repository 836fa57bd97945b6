"""The loss along a line through two models and on a plane through three, from line.csv and plane.csv."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from commexp.report.looks import look_of
from commexp.report.style import compact, figure, log_scale, save
from commexp.run_folder import Run

MODEL_MARKERS = ("o", "s", "^", "*", "D", "v", "P", "X")


def draw_line(run: Run, path: Path) -> list[Path]:
    """line.csv, columns ``t`` and ``train_loss``: the first model stands at t = 0, the second at t = 1. A loss
    that is not finite leaves a gap."""
    table = run.table("line").sort_values("t")
    losses = table["train_loss"].where(np.isfinite(table["train_loss"]))
    with figure(1, 1, 4.4, 2.9) as (made, (axis,)):
        axis.set(xlabel="position on the line from worker 0 to worker 1", ylabel="train loss")
        if losses.count() == 0:
            return _nothing(made, axis, path)
        axis.plot(table["t"], losses, color=look_of(run).colour, marker="." if losses.count() == 1 else "")
        if losses.min() > 0:
            log_scale(axis.yaxis)
        axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2.5, 5, 10]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for at, name in ((0, "worker 0"), (1, "worker 1")):
            axis.axvline(at, color="0.4", linestyle="--", linewidth=0.9, zorder=1)
            axis.annotate(
                name, (at, 1), (0, 2), xycoords=axis.get_xaxis_transform(), textcoords="offset points", ha="center"
            )
        return save(made, path)


def draw_plane(run: Run, path: Path) -> list[Path]:
    """plane.csv, columns ``x``, ``y``, ``train_loss``, a row per point of a grid; plane_models.csv, columns ``name``,
    ``x``, ``y``, the models to mark. Levels are logarithmic where positive losses span a factor of five. Grey is where
    the loss is not finite."""
    points = run.table("plane")
    if points["x"].nunique() * points["y"].nunique() != len(points):
        raise ValueError("plane.csv is no grid")
    grid = points.pivot(index="y", columns="x", values="train_loss")
    models = run.table("plane_models", name="str")
    x, y = grid.columns.to_numpy(float), grid.index.to_numpy(float)
    losses = np.ma.masked_invalid(grid.to_numpy(float))
    shape = float(np.ptp(y) / np.ptp(x)) if np.ptp(x) > 0 < np.ptp(y) else 1.0
    wide = min(3.3, 5.0 / shape)  # inches of the axes; around them 0.8 on the left, 1.1 right, 0.5 below, 0.4 above
    high = max(0.8, wide * shape)
    page = max(4.6, wide + 1.9)
    with figure(1, 1, page, high + 0.9) as (made, (axis,)):
        made.set_layout_engine("none")  # constrained layout cuts labels off where an aspect is given
        axis.set_position(
            ((0.8 + (page - wide - 1.9) / 2) / page, 0.5 / (high + 0.9), wide / page, high / (high + 0.9))
        )
        between = f"distance, {models['name'][0]} to {models['name'][1]}" if len(models) > 1 else "distance"
        axis.set(xlabel=between, ylabel="distance across", facecolor="0.85", aspect="equal")
        axis.grid(False)
        if losses.count() == 0 or min(losses.shape) < 2:
            return _nothing(made, axis, path)
        levels, ticks, norm = _levels(float(losses.min()), float(losses.max()))
        filled = axis.contourf(x, y, losses, levels=levels, norm=norm, cmap="viridis")
        axis.contour(x, y, losses, levels=levels, colors="white", linewidths=0.4, linestyles="solid", alpha=0.5)
        show = FuncFormatter(lambda value, _: compact(value))
        for along in (axis.xaxis, axis.yaxis):
            along.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
            along.set_major_formatter(show)
        beside = axis.inset_axes((1.03, 0, 0.05 * max(1.0, shape), 1))  # as high as the picture
        bar = made.colorbar(filled, cax=beside, label="train loss", ticks=ticks, format=show)
        bar.ax.minorticks_off()
        for number, (name, at_x, at_y) in enumerate(models[["name", "x", "y"]].itertuples(index=False)):
            marker = MODEL_MARKERS[number % len(MODEL_MARKERS)]
            size = 12 if marker == "*" else 7
            axis.plot(
                at_x, at_y, marker, label=name, markersize=size, color="white", markeredgecolor="black", linestyle=""
            )
        if len(models):
            made.legend(loc="upper center", ncols=min(4, len(models)), handletextpad=0.2, columnspacing=1.2)
        return save(made, path)


def _levels(low: float, high: float) -> tuple[list[float], list[float], Normalize]:
    """Levels of the contours, ticks of the colour bar, and the norm of the colours, for losses from ``low`` to
    ``high``."""
    if 0 < low * 5 <= high:
        levels = [float(v) for v in np.geomspace(low, high, 17)]
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        decades = decades[:: math.ceil(len(decades) / 7)]
        for steps in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
            ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
            if len(ticks) > 2:
                break
        norm: Normalize = LogNorm(low, high)
    else:
        flat = high - low <= 1e-6 * max(abs(low), abs(high))
        ticks = [low] if flat else [float(v) for v in MaxNLocator(6).tick_values(low, high) if low <= v <= high]
        around = 1e-3 * abs(low) + 1e-12 if flat else 0.0
        low, high = low - around, high + around
        levels = [float(v) for v in np.linspace(low, high, 17)]
        norm = Normalize(low, high)
    levels[0], levels[-1] = low, high  # not a rounding away from them
    return levels, ticks, norm


def _nothing(made: Figure, axis: Axes, path: Path) -> list[Path]:
    axis.set(xticks=[], yticks=[], aspect="auto")
    axis.text(0.5, 0.5, "no finite value", ha="center", transform=axis.transAxes)
    return save(made, path)
