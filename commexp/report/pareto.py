"""The Pareto front of a metric against a cost: which method no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from commexp.metrics import Metric
from commexp.report.bands import told
from commexp.report.looks import Look
from commexp.report.spread import Spread
from commexp.report.style import bytes_axis, columns_that_fit, figure, log_scale, note, percent_axis, save


@dataclass(frozen=True)
class Place:
    """Where a method stands: on the ``front``, or beaten by the method ``beaten_by``, which is on the front, costs no
    more and has the best value of all that cost no more. ``as_good``: of one on the front, the cheapest method there
    whose value differs from its own by no more than the errors. Empty where there is none."""

    front: bool
    beaten_by: str = ""
    as_good: str = ""


def places(cost: Mapping[str, Spread], value: Mapping[str, Spread], higher: bool) -> dict[str, Place]:
    """By method. One method dominates another if its mean cost is no greater and its mean value no worse, and one of
    both is better; the front are those that none dominates. A method whose mean cost or value is no finite number
    neither dominates nor is on the front. ``higher``: greater values are better."""
    sign = -1 if higher else 1
    at = {name: (_rounded(cost[name].mean), sign * _rounded(value[name].mean)) for name in cost}
    found = {name: Place(False) for name in cost}
    front: list[str] = []  # by cost; values improve along it
    for name in sorted((name for name in cost if all(map(math.isfinite, at[name]))), key=at.__getitem__):
        last = front[-1] if front else None
        if last is None or at[name] == at[last] or at[name][1] < at[last][1]:
            cheaper = [other for other in front if at[other][0] < at[name][0]]
            as_good = next((other for other in cheaper if value[other].differs(value[name]) is False), "")
            found[name] = Place(True, as_good=as_good)
            front.append(name)
        else:
            found[name] = Place(False, beaten_by=last)
    return found


def _rounded(value: float) -> float:
    """To 12 digits: means of the same numbers in another order are the same."""
    return float(f"{value:.12g}")


@dataclass(frozen=True)
class Panel:
    """What a panel shows of each method: mean ``cost`` and final ``value``, its place; the label of the cost."""

    cost: Mapping[str, Spread]
    value: Mapping[str, Spread]
    places: Mapping[str, Place]
    label: str
    in_bytes: bool


def draw_pareto(panels: Sequence[Panel], metric: Metric, looks: Mapping[str, Look], path: Path) -> list[Path]:
    """A point per method, with its standard deviations: filled on the front, which is the line; hollow where another
    method dominates it, in the grey region, with a dotted line to the one that does."""
    methods = [name for name in panels[0].cost if any(math.isfinite(panel.value[name].mean) for panel in panels)]
    beaten = any(place.beaten_by for panel in panels for place in panel.places.values())
    names = [*methods, "Pareto front", *(["dominated, and by which"] if beaten else [])]
    columns = columns_that_fit(names, 3.6 * len(panels))
    height = 2.8 + 0.17 * math.ceil(len(names) / columns)
    with figure(1, len(panels), 3.6, height, share_rows=True) as (made, axes):
        for axis, panel in zip(axes, panels, strict=True):
            _points(axis, panel, methods, looks)
            if panel.in_bytes:
                bytes_axis(axis.xaxis)
            else:
                log_scale(axis.xaxis)
            axis.set_xlabel(panel.label)
        if metric.scale == "percent":
            percent_axis(axes[0], "")
        elif all(panel.value[name].mean > 0 for panel in panels for name in methods):
            log_scale(axes[0].yaxis)
        axes[0].set_ylabel(f"final {metric.label}")
        for axis, panel in zip(axes, panels, strict=True):  # within the limits that all have
            _front(axis, panel, metric.better == "higher")
        handles = [axes[0].plot([], [], label=name, linestyle="none", **looks[name].point)[0] for name in methods]
        handles.append(axes[0].plot([], [], color="0.45", linewidth=1.0, label="Pareto front")[0])
        if beaten:
            hollow: dict[str, Any] = {"color": "0.45", "marker": "o", "markerfacecolor": "white", "linestyle": ":"}
            handles.append(axes[0].plot([], [], label="dominated, and by which", **hollow)[0])
        made.legend(handles=handles, loc="outside upper center", ncols=columns)
        note(made, told("std", (panels[0].value[name].count for name in methods), "bars"))
        return save(made, path)


def _points(axis: Axes, panel: Panel, methods: Sequence[str], looks: Mapping[str, Look]) -> None:
    for name in methods:
        cost, value, place = panel.cost[name], panel.value[name], panel.places[name]
        if not place.front and not place.beaten_by:
            continue
        if place.beaten_by:
            better = place.beaten_by
            ends = [cost.mean, panel.cost[better].mean], [value.mean, panel.value[better].mean]
            axis.plot(*ends, color="0.6", linestyle=":", linewidth=0.8, zorder=1)
        style: dict[str, Any] = {"xerr": _bar(cost), "yerr": _bar(value), **looks[name].point, "linestyle": "none"}
        style |= {"elinewidth": 0.8, "zorder": 3} | ({} if place.front else {"markerfacecolor": "white"})
        axis.errorbar(cost.mean, value.mean, **style)


def _bar(spread: Spread) -> float | None:
    return spread.std if 0 < spread.std < math.inf else None


def _front(axis: Axes, panel: Panel, higher: bool) -> None:
    """The staircase of the front, and the region that it dominates, within what is in sight."""
    names = sorted((n for n, place in panel.places.items() if place.front), key=lambda n: panel.cost[n].mean)
    if not names:
        return
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    x = np.array([*(panel.cost[n].mean for n in names), right])
    y = np.array([*(panel.value[n].mean for n in names), panel.value[names[-1]].mean])
    axis.plot(x, y, drawstyle="steps-post", color="0.45", linewidth=1.0, zorder=2)
    axis.fill_between(x, y, low if higher else high, step="post", color="0.5", alpha=0.08, linewidth=0, zorder=0)
    axis.set_xlim(left, right)
    axis.set_ylim(low, high)
