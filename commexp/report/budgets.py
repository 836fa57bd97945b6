"""Methods at equal cost: the metric at given bytes and at given seconds, and which methods are on the Pareto front."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from commexp.metrics import Metric, foremost, human_bytes, metric
from commexp.report.checked import ReadRun
from commexp.report.looks import Look
from commexp.report.pareto import Panel, Place, draw_pareto, places
from commexp.report.spread import ERRORS, Spread, human_seconds
from commexp.report.style import STYLES
from commexp.report.tables import markdown
from commexp.run_folder import on_clocks, write_atomic

#: the costs by their word on the command line: columns of metrics.csv
COSTS = {"bytes": "bytes_sent", "seconds": "sim_seconds"}
Cells = tuple[list[str], list[list[str]]]  # headers, rows


class ValueAt(NamedTuple):
    """The value of a run at a budget. ``reached``: it has spent so much. ``early``: the budget lies between its first
    two evaluations, of which the first is that of the untrained model."""

    value: float
    reached: bool
    early: bool = False


def value_at(run: pd.DataFrame, cost: str, name: str, budget: float) -> ValueAt:
    """The metric ``name`` of a run, its metrics.csv, when it had spent ``budget`` of the column ``cost``. Between two
    evaluations the value is linear in the cost; of several at the budget, the last counts; after the end it is that of
    the last one. NaN before the first evaluation."""
    if cost not in run or name not in run:
        return ValueAt(math.nan, False)
    x, y = run[cost].to_numpy(dtype=float), run[name].to_numpy(dtype=float)
    x, y = np.maximum.accumulate(x[np.isfinite(x)]), y[np.isfinite(x)]
    if not len(x):
        return ValueAt(math.nan, False)
    if budget < x[0]:
        return ValueAt(math.nan, True)
    i = int(np.searchsorted(x, budget, side="right")) - 1
    if i == len(x) - 1 or x[i] == budget:
        return ValueAt(float(y[i]), bool(budget <= x[-1]))
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged run ends in infinity and NaN
        return ValueAt(float(y[i] + (budget - x[i]) / (x[i + 1] - x[i]) * (y[i + 1] - y[i])), True, early=i == 0)


@dataclass(frozen=True)
class EqualCost:
    """``curves``: metrics.csv of each method's completed runs. ``statuses``: how many runs it has of which status.
    ``at``: budgets by column; where there are none of a column, see ``budgets``. ``clock``: what the seconds are
    called, where it is not the label of their column."""

    curves: Mapping[str, Sequence[pd.DataFrame]]
    statuses: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    clock: str = ""

    @classmethod
    def of(cls, groups: Mapping[str, Sequence[ReadRun]], at: Mapping[str, Sequence[float]] | None = None) -> EqualCost:
        """Of readable runs by method."""
        real = {run.on_wall_clock for runs in groups.values() for run in runs}
        counted = on_clocks(run for runs in groups.values() for run in runs)
        virtual = f"{metric('sim_seconds').label}, {counted}" if counted else ""
        return cls(
            {name: [run.metrics for run in runs if run.status == "completed"] for name, runs in groups.items()},
            {name: statuses([str(run.status) for run in runs]) for name, runs in groups.items()},
            at or {},
            virtual
            if real <= {False}
            else "time"
            if real == {True}
            else ", ".join(["time, virtual or real", *([counted] if counted else [])]),
        )

    @cached_property
    def metric(self) -> Metric | None:
        """The foremost that may stand for a run and that is better higher or lower, of all methods that have completed;
        if they have none in common, of any; None where there is none."""
        columns = [{*frame.columns} for frames in self.curves.values() for frame in frames]
        known = [m for m in foremost("final") if m.better and any(m.name in each for each in columns)]
        return next((m for m in known if all(m.name in each for each in columns)), known[0] if known else None)

    @cached_property
    def budgets(self) -> dict[str, list[float]]:
        """By column, as given; else what the cheapest run has spent in all, so that every run has a value, a tenth of
        it, and ten times as much where a run spends that."""
        found = {}
        for cost in COSTS.values():
            spent = [
                total for frames in self.curves.values() for f in frames if 0 < (total := _spent(f, cost)) < math.inf
            ]
            least, most = min(spent, default=math.nan), max(spent, default=math.nan)
            chosen = [least / 10, least, *([10 * least] if 10 * least <= most else [])] if spent else []
            found[cost] = sorted({*self.at.get(cost, chosen)})
        return found

    def final(self, cost: str) -> tuple[dict[str, Spread], dict[str, Spread]]:
        """What each method has spent of ``cost`` in all, and the metric then."""
        return self._finals[cost]

    @cached_property
    def _finals(self) -> dict[str, tuple[dict[str, Spread], dict[str, Spread]]]:
        name = self.metric.name if self.metric else ""
        last = {method: Spread.of(_last(f, name) for f in frames) for method, frames in self.curves.items()}
        return {
            cost: ({method: Spread.of(_spent(f, cost) for f in frames) for method, frames in self.curves.items()}, last)
            for cost in COSTS.values()
        }

    @cached_property
    def places(self) -> dict[str, dict[str, Place]]:
        """Each method's place beside the Pareto front, by cost."""
        higher = self.metric is not None and self.metric.better == "higher"
        return {cost: places(*self.final(cost), higher) for cost in COSTS.values()}

    @cached_property
    def table(self) -> pd.DataFrame:
        """budgets.csv: a row per cost, budget and method: mean, standard deviation, standard error and number of the
        completed runs, how many of them have spent so much, and of how many the value is early, see ValueAt."""
        assert self.metric is not None
        rows: list[tuple[Any, ...]] = []
        for cost, budgets in self.budgets.items():
            for budget in budgets:
                for method, frames in self.curves.items():
                    at = [value_at(frame, cost, self.metric.name, budget) for frame in frames]
                    spread = Spread.of(one.value for one in at)
                    told = (self.metric.name, spread.mean, spread.std, spread.error, spread.count)
                    counts = (sum(one.reached for one in at), sum(one.early for one in at))
                    rows.append((cost, budget, method, self.statuses.get(method, ""), *told, *counts))
        columns = ["cost", "budget", "method", "status", "metric", "mean", "std", "error", "count", "reached", "early"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def fronts(self) -> pd.DataFrame:
        """pareto.csv: a row per cost and method: what it has spent in all, the metric then, whether it is on the front,
        and beside whom."""
        assert self.metric is not None
        rows = []
        for cost, found in self.places.items():
            spent, final = self.final(cost)
            for method, place in found.items():
                row: dict[str, Any] = {"cost": cost, "method": method, "status": self.statuses.get(method, "")}
                row |= {"spent": spent[method].mean, "spent_std": spent[method].std, "metric": self.metric.name}
                row |= {"mean": final[method].mean, "std": final[method].std, "count": final[method].count}
                rows.append({**row, "front": place.front, "beaten_by": place.beaten_by, "as_good": place.as_good})
        return pd.DataFrame(rows)

    def readable(self, cost: str) -> Cells:
        """For people: a row per method, a column per budget, then what all rounds gave and cost, and its place."""
        assert self.metric is not None
        say = human_bytes if cost == "bytes_sent" else human_seconds
        spent, final = self.final(cost)
        told: dict[str, list[str]] = {}
        for row in self.table[self.table["cost"] == cost].to_dict("records"):
            told.setdefault(row["method"], []).append(self._cell(row))
        at = [f"at {say(budget)}" for budget in self.budgets[cost]]
        rows = []
        for method, place in self.places[cost].items():
            cells = told.get(method, [])
            ends = [self.metric.plus_minus(final[method].mean, final[method].std)] if final[method].count else ["-"]
            ends.append(say(spent[method].mean, spent[method].std) if final[method].count else "-")
            rows.append([method, self.statuses.get(method, "-"), *cells, *ends, _beside(place)])
        return ["method", "runs", *at, "at its end", "spent in all", "on the front"], rows

    def _cell(self, row: Mapping[Hashable, Any]) -> str:
        assert self.metric is not None
        if not row["count"] or math.isnan(row["mean"]):
            return "-"
        early = "~" if row["early"] else ""
        missed = int(row["count"]) - int(row["reached"])
        some = f" ({missed} of {row['count']} unreached)" if row["reached"] else " (unreached)"
        mark = some if missed else ""
        return early + self.metric.plus_minus(row["mean"], row["std"]) + mark

    def title(self, cost: str) -> str:
        assert self.metric is not None
        return f"{self.metric.label[:1].upper()}{self.metric.label[1:]} at equal {self.label(cost)}"

    def label(self, cost: str) -> str:
        return self.clock if self.clock and cost == "sim_seconds" else metric(cost).label

    @cached_property
    def shown(self) -> list[str]:
        """The costs of which there is a table: those that some run has spent, and those that are asked for."""
        if self.metric is None:
            return []
        return [cost for cost, budgets in self.budgets.items() if budgets]

    def markdown(self) -> list[str]:
        """Tables and their explanation; nothing where there is no metric or nothing was spent."""
        if not self.shown:
            return []
        blocks = [
            text
            for cost in self.shown
            for text in (f"{self.title(cost)}:", markdown(*self.readable(cost), ["runs", "at its end", "spent in all"]))
        ]
        return [*blocks, "\n".join(f"* {note}" for note in self.notes)]

    @property
    def notes(self) -> list[str]:
        """What the tables have to be read with; of the marks, those that occur."""
        told = [
            "Mean ± standard deviation over completed runs. Between two evaluations a value is linear in the cost.",
            "On the front: no other method is as good for less, or better for as little; the one that no names is the "
            "best for no more.",
        ]
        if self.table["early"].any():
            told.append(
                "~: a straight line from the untrained model to the next evaluation, which tells little; a smaller "
                "eval_every tells more."
            )
        if (self.table["reached"] < self.table["count"]).any():
            told.append("Unreached: the run ends before it has spent so much, and counts with its last value.")
        if any(place.as_good for found in self.places.values() for place in found.values()):
            told.append(
                f"≈: the cheapest method on the front whose last value differs by no more than {ERRORS:g} standard "
                "errors of the difference."
            )
        return told

    def write(self, folder: Path, prefix: str = "", called: Mapping[str, str] | None = None) -> list[Path]:
        """budgets.csv and pareto.csv, each with ``prefix``; nothing where there is no table. ``called``: the names that
        methods have there, by those that they have here."""
        tables = {"budgets": self.table, "pareto": self.fronts} if self.shown else {}
        written = {folder / f"{prefix}{name}.csv": table for name, table in tables.items()}
        for path, table in written.items():
            names = {column: called or {} for column in ("method", "beaten_by", "as_good")}
            write_atomic(path, table.replace(names).to_csv(index=False))
        return [*written]

    def draw(self, path: Path, looks: Mapping[str, Look]) -> list[Path]:
        """The Pareto fronts; nothing where fewer than two methods have a value, or more than can be told apart."""
        panels = []
        for cost in self.shown if len(self.curves) <= STYLES else ():
            spent, final = self.final(cost)
            if sum(place.front or bool(place.beaten_by) for place in self.places[cost].values()) > 1:
                label = metric(cost).axis if not self.clock or cost != "sim_seconds" else f"{self.clock} (s)"
                panels.append(Panel(spent, final, self.places[cost], label, cost == "bytes_sent"))
        return draw_pareto(panels, self.metric, looks, path) if panels and self.metric else []


def statuses(each: Sequence[str]) -> str:
    """2 completed, 1 diverged."""
    return ", ".join(f"{count} {status}" for status, count in Counter(each).items())


def _beside(place: Place) -> str:
    if place.front:
        return f"yes ≈ {place.as_good}" if place.as_good else "yes"
    return f"no: {place.beaten_by}" if place.beaten_by else "-"


def _spent(frame: pd.DataFrame, cost: str) -> float:
    """In all; NaN where no row says so."""
    return float(frame[cost].max()) if cost in frame and len(frame) else math.nan


def _last(frame: pd.DataFrame, name: str) -> float:
    return float(frame[name].iloc[-1]) if name in frame and len(frame) else math.nan
