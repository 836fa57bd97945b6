"""A sweep's runs as tables: a row per run, and a row per setting, aggregated over seeds."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from commexp.report.tables import METRICS, number, to_target
from commexp.rundir import Run

SUMMED = ("bytes_info", "bytes_sent", "bytes_wire", "bytes_against_dense", "wall_seconds", "sim_seconds")


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides as key -> value, its folder, the accuracy to report the cost of reaching, and
    its error where it was refused."""

    overrides: dict[str, str]
    run: Run
    target: float | None = None
    error: str | None = None


def read_jobs(folder: Path) -> list[Job]:
    """The jobs that a sweep's folder, <outputs>/sweeps/<name>, lists, in their order."""
    paths = sorted((folder / "jobs").glob("*.json"), key=lambda p: int(p.stem))
    loaded = [json.loads(p.read_text(encoding="utf-8")) for p in paths]
    return [Job(j["overrides"], _run_of(folder, j), j["target"], j["error"]) for j in loaded]


def _run_of(folder: Path, job: dict[str, Any]) -> Run:
    """A sweep's folder lies in <outputs>/sweeps, unless it was given one of its own."""
    return Run(Path(os.path.normpath(folder / job.get("outputs", "../.."))) / "runs" / job["run"])


def varied(jobs: Sequence[Job]) -> list[str]:
    """The keys that tell the jobs apart; all keys where there is but one job."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    return [k for k in keys if len({j.overrides.get(k) for j in jobs}) > 1] or keys


def per_run(jobs: Sequence[Job], keys: Sequence[str]) -> pd.DataFrame:
    """A row per job: its ``keys``, status, final and best metrics, bytes, seconds, bytes and time to target."""
    rows = []
    for job in jobs:
        s = {} if job.error else job.run.summary
        row: dict[str, Any] = {k: job.overrides.get(k, "") for k in keys}
        row["status"] = "refused" if job.error else job.run.status or "missing"
        for metric in METRICS:
            if metric in s:
                row[metric] = number(s[metric])
                row[f"best_{metric}"] = number(s.get(f"best_{metric}"))
        row.update({name: number(s[name]) for name in SUMMED if name in s})
        if job.target is not None and "test_accuracy" in s:
            at = to_target(job.run.metrics, job.target)
            row["target"] = job.target
            row["bytes_to_target"] = math.nan if at is None else at["bytes_sent"]
            row["seconds_to_target"] = math.nan if at is None else at["sim_seconds"]
        row["compression"] = _compression(job.run) if s else math.nan
        row["run"] = job.run.name
        rows.append(row)
    return pd.DataFrame(rows)


def aggregate(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A row per setting of ``keys`` other than the seed: statuses, the count of completed runs, and each value's mean
    and standard deviation (n - 1) over them."""
    by = [k for k in keys if k != "seed"]
    values = [c for c in runs.columns if c not in (*keys, "status", "run", "target")]
    rows = []
    for setting, group in runs.groupby(by, sort=False, dropna=False) if by else [((), runs)]:
        done = group[group["status"] == "completed"]
        row: dict[str, Any] = dict(zip(by, setting if isinstance(setting, tuple) else (setting,), strict=True))
        row["status"] = ", ".join(f"{n} {status}" for status, n in Counter(group["status"]).items())
        row["count"] = len(done)
        for column in values:
            row[column] = done[column].mean()
            row[f"{column}_std"] = done[column].std(ddof=1) if len(done) > 1 else math.nan
        if "bytes_to_target" in runs:
            row["target"] = group["target"].max()
            row["reached_target"] = int(done["bytes_to_target"].notna().sum())
        rows.append(row)
    return pd.DataFrame(rows)


def _compression(run: Run) -> float:
    """Share of the entries that is sent, k/J; 1 without compression, NaN for a compressor that has no k."""
    compress = run.config["compress"]
    k = 1.0 if compress["_target_"].endswith(".NoCompression") else compress.get("k")
    if k is None:
        return math.nan
    return float(k) if isinstance(k, float) else k / number(run.summary.get("parameters"))
