"""A sweep's table, aggregated over seeds, and its two plots."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from commexp.report.curves import draw_curves
from commexp.report.style import COLOURS, MARKERS, bytes_axis, figure, log_scale, percent_axis, save
from commexp.report.tables import METRICS, markdown, number, show, to_target
from commexp.rundir import Run, write_atomic
from commexp.units import human_bytes

SUMMED = ("bytes_info", "bytes_sent", "bytes_wire", "bytes_against_dense", "wall_seconds", "sim_seconds")


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides as key -> value, its folder, and its error where it was refused."""

    overrides: dict[str, str]
    run: Run
    error: str | None = None


def read_jobs(folder: Path) -> list[Job]:
    """The jobs that a sweep's folder lists, in their order."""
    paths = sorted((folder / "jobs").glob("*.json"), key=lambda p: int(p.stem))
    loaded = [json.loads(p.read_text(encoding="utf-8")) for p in paths]
    return [Job(j["overrides"], Run(Path(j["run"])), j.get("error")) for j in loaded]


def per_run(jobs: Sequence[Job], target: float | None) -> pd.DataFrame:
    """A row per job: what was varied, status, final and best metrics, bytes, seconds, bytes and time to target."""
    keys = [k for k in _keys(jobs) if len({j.overrides.get(k) for j in jobs}) > 1] or _keys(jobs)
    rows = []
    for job in jobs:
        s = job.run.summary
        row: dict[str, Any] = {k: job.overrides.get(k, "") for k in keys}
        row["status"] = "refused" if job.error else job.run.status or "missing"
        for metric in METRICS:
            if metric in s:
                row[metric] = number(s[metric])
                row[f"best_{metric}"] = number(s.get(f"best_{metric}"))
        row.update({name: number(s[name]) for name in SUMMED if name in s})
        row.update({f"{what}_to_target": math.nan for what in ("bytes", "seconds")} if target else {})
        reached = to_target(job.run.metrics, target)
        if reached is not None:
            row["bytes_to_target"], row["seconds_to_target"] = reached["bytes_sent"], reached["sim_seconds"]
        row["compression"] = _compression(job.run)
        row["run"] = job.run.name
        rows.append(row)
    return pd.DataFrame(rows)


def aggregate(runs: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """A row per setting: counts, status, and mean and standard deviation over its completed seeds."""
    keys = [k for k in _keys(jobs) if k in runs and k != "seed"]
    values = [c for c in runs.columns if c not in (*_keys(jobs), "status", "run")]
    rows = []
    for setting, group in runs.groupby(keys, sort=False, dropna=False) if keys else [((), runs)]:
        done = group[group["status"] == "completed"]
        names = setting if isinstance(setting, tuple) else (setting,)
        row: dict[str, Any] = dict(zip(keys, names, strict=True))
        row["status"] = ", ".join(f"{n} {status}" for status, n in Counter(group["status"]).items())
        row["count"] = len(done)
        for column in values:
            row[column] = done[column].mean()
            row[f"{column}_std"] = done[column].std(ddof=1) if len(done) > 1 else math.nan
            if column == "bytes_to_target":
                row["reached_target"] = int(done[column].notna().sum())
        rows.append(row)
    return pd.DataFrame(rows)


def write_sweep(folder: Path, target: float | None) -> str:
    """sweep.csv, .md, .tex, runs.csv and the figures of a sweep's folder; returns the Markdown table."""
    jobs = read_jobs(folder)
    runs = per_run(jobs, target)
    table = aggregate(runs, jobs)
    heads, cells = _readable(table, jobs, target)
    text = markdown(heads, cells) + "\n"
    write_atomic(folder / "runs.csv", runs.to_csv(index=False))
    write_atomic(folder / "sweep.csv", table.to_csv(index=False))
    write_atomic(folder / "sweep.md", text)
    write_atomic(folder / "sweep.tex", latex(heads, cells))
    _draw(folder / "figures", table, jobs, target)
    groups: dict[str, list[Run]] = {}
    for job in jobs:
        name = ", ".join(_call(k, v) for k, v in job.overrides.items() if k in table)
        groups.setdefault(name, []).append(job.run)
    draw_curves(groups, folder / "figures" / "curves")
    return text


def latex(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A booktabs table."""

    def line(cells: Sequence[str]) -> str:
        escaped = [c.replace("%", r"\%").replace("_", r"\_").replace("±", r"$\pm$") for c in cells]
        return " & ".join(escaped) + r" \\"

    body = "\n".join(line(r) for r in rows)
    columns = "l" * len(heads)
    top = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(heads)}\n\\midrule\n"
    return f"{top}{body}\n\\bottomrule\n\\end{{tabular}}\n"


def _readable(table: pd.DataFrame, jobs: Sequence[Job], target: float | None) -> tuple[list[str], list[list[str]]]:
    """Headers and cells for people: mean ± standard deviation."""
    keys = [k for k in _keys(jobs) if k in table]
    metrics = [m for m in METRICS if m in table]
    counts = [c for c in ("bytes_info", "bytes_sent", "bytes_wire") if c in table]
    wanted = [*metrics, *(["best_test_accuracy"] if "best_test_accuracy" in table else [])]
    heads = [*keys, "runs", *[METRICS.get(m, "best accuracy") for m in wanted]]
    heads += [c.replace("bytes_", "") for c in counts] + (["sent / dense"] if counts else [])
    heads += (["wall s"] if "wall_seconds" in table else []) + ([f"sent to {target:g}"] if _has_target(table) else [])
    cells = []
    for _, row in table.iterrows():
        line = [str(row[k]) for k in keys] + [row["status"]]
        line += [_plus_minus(m, row[m], row[f"{m}_std"]) for m in wanted]
        line += [human_bytes(row[c]) if row["count"] else "-" for c in counts]
        if counts:
            line.append(f"{row['bytes_against_dense']:.4f}" if row["count"] else "-")
        if "wall_seconds" in table:
            line.append(f"{row['wall_seconds']:.1f}" if row["count"] else "-")
        if _has_target(table):
            reached = row["reached_target"]
            some = "" if reached == row["count"] else f" ({reached} of {row['count']})"
            line.append(human_bytes(row["bytes_to_target"]) + some if reached else "not reached")
        cells.append(line)
    return heads, cells


def _has_target(table: pd.DataFrame) -> bool:
    return "reached_target" in table


def _plus_minus(metric: str, mean: float, std: float) -> str:
    text = show(metric, mean)
    if math.isnan(std):
        return text
    return f"{text} ± {std * 100:.2f}" if metric.endswith("accuracy") else f"{text} ± {std:.2g}"


def _keys(jobs: Sequence[Job]) -> list[str]:
    keys: dict[str, None] = {}
    for job in jobs:
        keys.update(dict.fromkeys(job.overrides))
    return list(keys)


def _compression(run: Run) -> float:
    """Share of the entries that is sent: k/J where the compressor has a k, else bytes sent over dense bytes."""
    s = run.summary
    if not s:
        return math.nan
    k = run.config["compress"].get("k")
    if k is None:
        return number(s.get("bytes_against_dense"))
    return float(k) if isinstance(k, float) else k / s["parameters"]


def _draw(folder: Path, table: pd.DataFrame, jobs: Sequence[Job], target: float | None) -> None:
    metric = next((m for m in ("test_accuracy", "dist_to_opt", "train_loss") if m in table), None)
    if metric is None:
        return
    methods = [k for k in _keys(jobs) if k in table and k != "compress.k"]
    done = table[table["count"] > 0].sort_values("compression")
    with figure(1, 1, 4.2, 3.0) as (made, axes):
        _lines(axes[0], done, methods, metric)
        if metric == "test_accuracy":
            percent_axis(axes[0], "final test accuracy")
        else:
            log_scale(axes[0].yaxis)
            axes[0].set_ylabel(f"final {METRICS[metric]}")
        save(made, folder / "final_against_compression")
    if target is None or not _has_target(table):
        return
    with figure(1, 1, 4.2, 3.0) as (made, axes):
        axis = axes[0]
        reached = done[done["reached_target"] > 0]
        _lines(axis, reached, methods, "bytes_to_target")
        axis.set_ylabel(f"bytes sent to reach {target:.0%}")
        if len(reached):
            bytes_axis(axis.yaxis)
        else:
            axis.text(0.5, 0.5, f"no run reached {target:.0%}", ha="center", transform=axis.transAxes)
        save(made, folder / "bytes_to_target")


def _call(key: str, value: str) -> str:
    """How a legend says one override."""
    return value if key in ("algo", "compress") else f"{key.removeprefix('compress.').removeprefix('algo.')}={value}"


def _lines(axis: Any, table: pd.DataFrame, methods: list[str], value: str) -> None:
    groups = table.groupby(methods, sort=False) if methods and len(table) else [((), table)]
    for i, (setting, group) in enumerate(groups):
        names = setting if isinstance(setting, tuple) else (setting,)
        text = ", ".join(_call(k, str(n)) for k, n in zip(methods, names, strict=False))
        axis.errorbar(
            group["compression"],
            group[value],
            yerr=group[f"{value}_std"].fillna(0.0),
            label=text or None,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            capsize=2.5,
        )
    log_scale(axis.xaxis, "{:g}".format)
    axis.set_xlabel("share of the entries sent, k/J")
    if methods and len(table):
        axis.legend()
