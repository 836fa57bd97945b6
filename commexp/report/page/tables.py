"""The page's tables: the texts of their cells, and the numbers by which those are sorted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from commexp.metrics import human_bytes
from commexp.report.checked import ReadRun
from commexp.report.comparison import Comparison
from commexp.report.sweep import plus_minus, reached
from commexp.report.tables import METRICS, number, show

HEADLINE = ("test_accuracy", "test_rmse", "dist_to_opt", "stationarity", "objective", "train_loss")
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
    heads = ["method", "runs", *[head for m, text in metrics for head in _final_and_best(methods, m, text)], "sent"]
    if "reached_target" in methods:
        to = f"{methods['target'].max():.4g} acc." if methods["target"].nunique() == 1 else "target"
        heads += [f"bytes to {to}", f"virtual time to {to}"]
    rows = []
    for _, row in methods.iterrows():
        cells = [Cell(row["method"]), Cell(row["status"])]
        for metric, text in metrics:
            names = [metric, f"best_{metric}"][: len(_final_and_best(methods, metric, text))]
            cells += [Cell(plus_minus(metric, row[m], row[f"{m}_std"]), float(row[m])) for m in names]
        cells.append(_count(row.get("bytes_sent")))
        if "reached_target" in methods:
            for cost, say in (("bytes_to_target", human_bytes), ("seconds_to_target", lambda mean, _: seconds(mean))):
                cells.append(Cell(reached(row, cost, say), float(row[cost])))
        rows.append(cells)
    return SortableTable("methods", heads, rows)


def _headline(columns: Sequence[Any]) -> list[tuple[str, str]]:
    found = [(m, METRICS[m]) for m in HEADLINE if m in columns]
    return [(m, text) for m, text in found if not (m == "train_loss" and "objective" in columns)]


def _final_and_best(frame: pd.DataFrame, metric: str, text: str) -> list[str]:
    return [text, f"best {text}"] if f"best_{metric}" in frame and frame[f"best_{metric}"].notna().any() else [text]


def runs_table(compared: Comparison) -> SortableTable:
    """A row per run or folder that was named, whatever became of it."""
    method = {run.name: name for name, runs in compared.groups.items() for run in runs}
    metrics = _headline([m for run in compared.runs if not run.problem for m in run.summary])
    heads = [
        "run",
        "method",
        "seed",
        "status",
        "rounds",
        *[head for _, text in metrics for head in (text, f"best {text}")],
    ]
    heads += ["info", "sent", "wire", "virtual time", "time here", "note"]
    rows = []
    for run in compared.runs:
        s = {} if run.problem else run.summary
        seed = "-" if run.problem else str(run.config["seed"])
        cells = [Cell(run.name), Cell(method.get(run.name, "-")), Cell(seed), _status(run.state)]
        done = number(s.get("round"))
        cells.append(Cell("-" if math.isnan(done) else f"{done:,.0f}", done))
        for metric, _ in metrics:
            cells += [Cell(show(metric, s.get(m)), number(s.get(m))) for m in (metric, f"best_{metric}")]
        cells += [_count(s.get(name)) for name in ("bytes_info", "bytes_sent", "bytes_wire")]
        cells += [Cell(seconds(t), t) for t in (number(s.get("sim_seconds")), number(s.get("wall_seconds")))]
        rows.append([*cells, Cell(run.reason, kind="note")])
    for one in compared.left:
        empty = [Cell("-")] * (len(heads) - 5)
        rows.append([Cell(one.name), Cell("-"), Cell("-"), _status("no run"), *empty, Cell(one.why, kind="note")])
    return SortableTable("runs", heads, rows)


def made_table(runs: Sequence[ReadRun]) -> SortableTable:
    """What each run was, and the command that made it."""
    heads = ["run", "dataset", "model", "seed", "workers", "device", "commit", "command"]
    rows = []
    for run in runs:
        told = [part(run, "dataset"), part(run, "model")]
        told += [str(run.meta.get(key, "-")) for key in ("seed", "workers", "device", "git_commit")]
        command = Cell(str(run.meta.get("command", "-")), kind="code")
        rows.append([Cell(run.name), *map(Cell, told), command])
    return SortableTable("made", heads, rows)


def part(run: ReadRun, key: str) -> str:
    """Which dataset or model it was: its class."""
    found = {} if run.problem else run.config.get(key)
    return str(found.get("_target_", "-")).rpartition(".")[2] if isinstance(found, dict) else "-"


def differences_table(compared: Comparison) -> SortableTable:
    heads, rows = compared.differences
    return SortableTable("differences", heads, [[Cell(text) for text in row] for row in rows])


def seconds(value: float) -> str:
    """1.23 s; 12,300 s."""
    return "-" if math.isnan(value) else f"{value:,.0f} s" if value >= 1000 else f"{value:.3g} s"


def _count(value: Any) -> Cell:
    count = number(value)
    return Cell("-") if math.isnan(count) else Cell(human_bytes(count), count)


def _status(status: str) -> Cell:
    return Cell(status, kind=f"status {status if status in STATUSES else 'other'}")
