"""The page's tables: the texts of their cells, and the numbers by which those are sorted."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from commexp.files import printable
from commexp.metrics import Metric, foremost, human_bytes, metric, number
from commexp.report.checked import ReadRun
from commexp.report.comparison import Comparison
from commexp.report.spread import human_seconds
from commexp.report.sweep import reached
from commexp.report.tables import sizes
from commexp.report.target import common

STATUSES = ("completed", "running", "interrupted", "diverged", "failed")


@dataclass(frozen=True)
class Cell:
    """``value``: what a number is sorted by. ``kind``: a class of page.css."""

    text: str
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class SortableTable:
    id: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> list[bool]:
        """Of each column: whether it is one of numbers, which is so where a cell has a value."""
        return [any(row[i].value is not None for row in self.rows) for i in range(len(self.heads))]


def methods_table(compared: Comparison) -> SortableTable:
    """A row per method, over its completed runs."""
    methods = compared.methods
    metrics = _headline(list(methods.columns))
    columns = [(name, m) for m in metrics for name in _final_and_best(methods, m)]
    costs = [m for m in sizes(methods.to_dict("records")) if m.scale == "bits" or m.name == "bytes_sent"]
    heads = ["method", "runs", *[m.label if name == m.name else f"best {m.label}" for name, m in columns]]
    heads += [m.short for m in costs]
    if "reached_target" in methods:
        target = common(methods)
        to = target.short if target else "target"
        heads += [f"bytes to {to}", f"virtual time to {to}{_counted(compared)}"]
    rows = []
    for _, row in methods.iterrows():
        cells = [Cell(row["method"]), Cell(row["status"])]
        cells += [Cell(m.plus_minus(row[name], row[f"{name}_std"]), float(row[name])) for name, m in columns]
        cells += [_size(m, row.get(m.name)) for m in costs]
        if "reached_target" in methods:
            for cost, say in (
                ("bytes_to_target", human_bytes),
                ("seconds_to_target", lambda mean, _: human_seconds(mean)),
            ):
                cells.append(Cell(reached(row, cost, say), float(row[cost])))
        rows.append(cells)
    return SortableTable("methods", heads, rows)


def _counted(compared: Comparison) -> str:
    return f", {compared.on_clocks}" if compared.on_clocks else ""


def _headline(columns: Sequence[Any]) -> list[Metric]:
    """The metrics that a row shows, the foremost first."""
    present = [m for m in foremost("page") if m.name in columns]
    replaced = {m.replaces for m in present}
    return [m for m in present if m.name not in replaced]


def _final_and_best(frame: pd.DataFrame, m: Metric) -> list[str]:
    """The columns of its final and, where there is one, its best value."""
    return [m.name, m.best] if m.best in frame and frame[m.best].notna().any() else [m.name]


def runs_table(compared: Comparison) -> SortableTable:
    """A row per run or folder that was named, whatever became of it."""
    method = {run.name: name for name, runs in compared.groups.items() for run in runs}
    metrics = _headline([m for run in compared.runs if not run.problem for m in run.summary])
    summaries = [run.summary for run in compared.runs if not run.problem]
    costs = sizes(summaries)
    times = [metric("sim_seconds"), metric("wall_seconds")]
    heads = ["run", "method", "seed", "status", "rounds"]
    heads += [head for m in metrics for head in (m.label, f"best {m.label}")]
    heads += [*[m.short for m in costs], f"{times[0].short}{_counted(compared)}", times[1].short, "note"]
    rows = []
    for run in compared.runs:
        s = {} if run.problem else run.summary
        seed = "-" if run.problem else str(run.config["seed"])
        cells = [Cell(run.name), Cell(method.get(run.name, "-")), Cell(seed), _status(run.state)]
        done = number(s.get("round"))
        cells.append(Cell("-" if math.isnan(done) else f"{done:,.0f}", done))
        for m in metrics:
            cells += [Cell(m.show(s.get(name)), number(s.get(name))) for name in (m.name, m.best)]
        cells += [_size(m, s.get(m.name)) for m in costs]
        cells += [Cell(human_seconds(t), t) for t in (number(s.get(m.name)) for m in times)]
        stopped = f"stopped by {s['stopped_by']}" if "stopped_by" in s else ""
        rows.append([*cells, Cell(run.reason or stopped, kind="note")])
    for one in compared.left:
        empty = [Cell("-")] * (len(heads) - 5)
        rows.append([Cell(one.name), Cell("-"), Cell("-"), _status("no run"), *empty, Cell(one.why, kind="note")])
    return SortableTable("runs", heads, rows)


def equal_tables(compared: Comparison) -> dict[str, SortableTable]:
    """The methods at equal bytes and at equal time, by title."""
    equal = compared.equal_cost
    made = {}
    for cost in equal.shown:
        heads, texts = equal.readable(cost)
        spent, final = equal.final(cost)
        means = equal.table[equal.table["cost"] == cost].pivot(index="method", columns="budget", values="mean")
        rows = []
        for line in texts:
            method = line[0]
            numbers = [*means.loc[method], final[method].mean, spent[method].mean]
            rows.append([Cell(text, value) for text, value in zip(line, [None, None, *numbers, None], strict=True)])
        made[equal.title(cost)] = SortableTable(f"equal_{cost}", heads, rows)
    return made


def made_table(runs: Sequence[ReadRun]) -> SortableTable:
    """What each run was, and the command that made it."""
    heads = ["run", "dataset", "model", "seed", "workers", "device", "commit", "command"]
    rows = []
    for run in runs:
        told = [part(run, "dataset"), part(run, "model")]
        told += [str(run.meta.get(key, "-")) for key in ("seed", "workers", "device", "git_commit")]
        rows.append([Cell(run.name), *map(Cell, told), Cell(command_of(run), kind="code")])
    return SortableTable("made", heads, rows)


def command_of(run: ReadRun) -> str:
    """What makes this run alone: of a job of a sweep, not the command of all jobs."""
    command, words = str(run.meta.get("command", "-")), run.meta.get("overrides")
    if isinstance(words, list) and {"-m", "--multirun"} & {*command.split()}:
        return printable(shlex.join(["commexp", *map(str, words)]))
    return command


def part(run: ReadRun, key: str) -> str:
    """Which dataset or model it was: its class."""
    node = {} if run.problem else run.config.get(key)
    return str(node.get("_target_", "-")).rpartition(".")[2] if isinstance(node, dict) else "-"


def differences_table(compared: Comparison) -> SortableTable:
    heads, rows = compared.differences
    return SortableTable("differences", heads, [[Cell(text) for text in row] for row in rows])


def _size(m: Metric, value: Any) -> Cell:
    count = number(value)
    return Cell("-") if math.isnan(count) else Cell(m.show(count), count)


def _status(status: str) -> Cell:
    return Cell(status, kind=f"status {status if status in STATUSES else 'other'}")
