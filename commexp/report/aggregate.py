"""A sweep's runs as tables: a row per run, and a row per setting, aggregated over seeds."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from commexp.files import printable, read_json
from commexp.metrics import number, shown
from commexp.report.checked import LeftOut, ReadRun
from commexp.report.target import Target


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides as key -> value, its folder, the accuracy or loss to report the cost of
    reaching, its error where it was refused, and the file that says so."""

    overrides: dict[str, str]
    run: ReadRun
    target: Target | None = None
    error: str | None = None
    path: Path = Path()


def read_jobs(folder: Path) -> list[Job | LeftOut]:
    """The jobs that a sweep's folder, <outputs>/sweeps/<name>, lists, in their order, and the files that list none."""
    paths = sorted((folder / "jobs").glob("*.json"), key=lambda p: (not _is_count(p.stem), len(p.stem), p.stem))
    return [_read_job(path, folder) for path in paths]


def _read_job(path: Path, folder: Path) -> Job | LeftOut:
    """Its run lies beside the sweeps, or in the outputs that the file names: a sweep may have a folder of its own."""
    try:
        job = read_json(path)
        overrides, name, accuracy, error = (job[key] for key in ("overrides", "run", "target", "error"))
        outputs = job.get("outputs", "../..")
        if not _is_count(path.stem):
            raise ValueError("its name is no number")
        if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name:
            raise ValueError(f"run={name}: no name of a run")
        if not isinstance(outputs, str) or "\0" in outputs:
            raise ValueError(f"outputs={outputs}: no folder")
        if not isinstance(overrides, dict) or not isinstance(error, str | None):
            raise ValueError("no job")
        words = {printable(key): printable(str(value)) for key, value in overrides.items()}
        goal = Target.of({"target_accuracy": accuracy, "target_loss": job.get("target_loss")})
        run = ReadRun(Path(os.path.normpath(folder / outputs)) / "runs" / name)
        return Job(words, run, goal, None if error is None else printable(error), path)
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        return LeftOut(path, f"cannot be read: {getattr(error, 'strerror', None) or error!r}")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()


def varied(jobs: Sequence[Job]) -> list[str]:
    """The keys that tell the jobs apart; all keys where there is but one job."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    return [k for k in keys if len({j.overrides.get(k) for j in jobs}) > 1] or keys


def per_run(jobs: Sequence[Job], keys: Sequence[str]) -> pd.DataFrame:
    """A row per job: its ``keys``, status, final and best metrics, bytes, seconds, bytes and time to target, and what
    ended it before its full length."""
    rows = []
    for job in jobs:
        s = {} if job.error or job.run.problem else job.run.summary
        row: dict[str, Any] = {k: job.overrides.get(k, "") for k in keys}
        row["status"] = "refused" if job.error else job.run.state if job.run.folder.is_dir() else "missing"
        for metric in shown("table"):
            if metric.name in s:
                row[metric.name] = number(s[metric.name])
                row[metric.best] = number(s.get(metric.best))
        row.update({cost.name: number(s[cost.name]) for cost in shown("cost") if cost.name in s})
        if job.target is not None and job.target.column(s):
            at = job.target.first(job.run.metrics)
            row["target"], row["target_is_loss"] = job.target.value, job.target.is_loss
            row["bytes_to_target"] = math.nan if at is None else at["bytes_sent"]
            row["seconds_to_target"] = math.nan if at is None else at["sim_seconds"]
        row["compression"] = _compression(job.run) if s else math.nan
        if "stopped_by" in s:
            row["stopped_by"] = str(s["stopped_by"])
        row["run"] = job.run.name
        rows.append(row)
    return pd.DataFrame(rows)


def aggregate(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A row per setting of ``keys`` other than the seed: statuses, the count of completed runs, each value's mean and
    standard deviation (n - 1) over them, and what ended how many of them before their full length."""
    by = [k for k in keys if k != "seed"]
    values = [c for c in runs.columns if c not in (*keys, "status", "run", "target", "target_is_loss", "stopped_by")]
    rows = []
    for setting, group in runs.groupby(by, sort=False, dropna=False) if by else [((), runs)]:
        done = group[group["status"] == "completed"]
        row: dict[str, Any] = dict(zip(by, setting if isinstance(setting, tuple) else (setting,), strict=True))
        row["status"] = ", ".join(f"{n} {status}" for status, n in Counter(group["status"]).items())
        row["count"] = len(done)
        for column in values:
            with np.errstate(over="ignore", invalid="ignore"):  # a mean of infinite values is one
                row[column] = done[column].mean()
                row[f"{column}_std"] = done[column].std(ddof=1) if len(done) > 1 else math.nan
        if "bytes_to_target" in runs:
            row["target"], row["target_is_loss"] = group["target"].max(), group["target_is_loss"].max()
            row["reached_target"] = int(done["bytes_to_target"].notna().sum())
        if "stopped_by" in runs:
            criteria = Counter(text.partition(" (")[0] for text in done["stopped_by"].dropna())
            row["stopped_by"] = ", ".join(f"{n} {criterion}" for criterion, n in criteria.items())
        rows.append(row)
    return pd.DataFrame(rows)


def _compression(run: ReadRun) -> float:
    """Share of the entries that is sent, k/J; 1 without compression, NaN for a compressor that has no k."""
    compress = run.config["compress"]
    k = 1.0 if compress["_target_"].endswith(".NoCompression") else compress.get("k")
    if k is None:
        return math.nan
    return float(k) if isinstance(k, float) else k / (number(run.summary.get("parameters")) or math.nan)
