"""Which runs are meant by the folders that a report is given, and what in them cannot be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from commexp.report.aggregate import SUMMED, read_jobs
from commexp.report.tables import METRICS, number, phase_seconds
from commexp.report.topology import read_weights
from commexp.rundir import Run, read_json

COUNTED = ("step", "bytes_sent", "wall_seconds", "sim_seconds")  # columns of every metrics.csv
BEGUN = ("config.yaml", "meta.json", "metrics.csv")  # a folder with one of them is a run


@dataclass(frozen=True)
class LeftOut:
    """A folder that is no run, and why."""

    folder: Path
    why: str


class ReadRun(Run):
    """A run's folder of which each file is read once. ``problem``: the first file that cannot be read, and why."""

    @cached_property
    def meta(self) -> dict[str, Any]:
        return super().meta

    @cached_property
    def config(self) -> dict[str, Any]:
        return super().config

    @cached_property
    def metrics(self) -> pd.DataFrame:
        return super().metrics

    @cached_property
    def traffic(self) -> pd.DataFrame:
        return super().traffic

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Of a run that has not ended, from what it has evaluated so far."""
        if (self.folder / "summary.json").is_file() or self.problem or self.metrics.empty:
            return super().summary
        known = [m for m in METRICS if m in self.metrics]
        best = {m: self.metrics[m].max() if m.endswith("accuracy") else self.metrics[m].min() for m in known}
        return {
            "parameters": self.meta.get("parameters", math.nan),
            **{str(m): value for m, value in self.metrics.iloc[-1].items()},
            **{f"best_{m}": value for m, value in best.items()},
        }

    @cached_property
    def phases(self) -> dict[str, float]:
        return phase_seconds(self)

    @cached_property
    def problem(self) -> str:
        name = ""
        try:
            for name in ("meta.json", "summary.json"):
                content = read_json(self.folder / name)
                if (self.folder / name).is_file() and not content:
                    return f"{name} cannot be read"
                for key in {*METRICS, *SUMMED} & content.keys():
                    number(content[key])
            name = "config.yaml"
            if missing := {"seed", "compress", "algo"} - self.config.keys():
                return f"{name} lacks {', '.join(sorted(missing))}"
            name = "metrics.csv"
            if wrong := _not_numbers(self.metrics, *COUNTED):
                return f"{name} cannot be read: {wrong}"
            name = "traffic.csv"
            if wrong := _not_numbers(self.traffic.drop(columns=["exchange", "direction"], errors="ignore")):
                return f"{name} cannot be read: {wrong}"
            self.phases  # noqa: B018
            name = "topology.csv"
            if (self.folder / name).is_file():
                read_weights(self)
        except (OSError, ValueError, TypeError, LookupError, AssertionError, yaml.YAMLError) as error:
            return f"{name} cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
        return ""


def _not_numbers(table: pd.DataFrame, *columns: str) -> str:
    """What is wrong with a table that is to hold numbers only, ``round`` and ``columns`` among them."""
    if table.empty:
        return ""
    if missing := [c for c in ("round", *columns) if c not in table]:
        return f"there is no column {missing[0]}"
    for column in table:
        if not pd.api.types.is_numeric_dtype(table[column]):
            lines = pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()
            row = int(lines.to_numpy().argmax())
            return f"line {row + 2}, column {column}: {str(table[column].iloc[row])[:40]!r} is no number"
    return ""


def read_runs(folders: Sequence[Path]) -> tuple[list[ReadRun], list[LeftOut]]:
    """The runs that ``folders`` are or hold, each once, and the folders that hold none."""
    runs: dict[Path, ReadRun] = {}
    left: dict[Path, LeftOut] = {}
    for folder in folders:
        for found in _inside(folder):
            kept: dict[Path, Any] = left if isinstance(found, LeftOut) else runs
            kept.setdefault(found.folder.resolve(), found)
    return list(runs.values()), list(left.values())


def _inside(folder: Path) -> list[ReadRun | LeftOut]:
    """A run; the runs of a sweep, in its order; those of a folder of runs, which may be deeper. Where runs lie beside a
    folder that holds none, that is left out by its name."""
    if not folder.is_dir():
        return [LeftOut(folder, "is no folder" if folder.exists() else "no such folder")]
    if any((folder / name).is_file() for name in BEGUN):
        return [ReadRun(folder)]
    if (folder / "jobs").is_dir():
        return _jobs(folder)
    parts = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.is_symlink() and p.name[0] != "."]
    found = [one for part in parts for one in _inside(part)]
    if any(isinstance(one, ReadRun) for one in found):
        beside = {one.folder.parent for one in found if isinstance(one, ReadRun)}
        return [
            one for one in found if isinstance(one, ReadRun) or one.folder.parent in beside or not one.folder.is_dir()
        ]
    return [LeftOut(folder, "holds no run" if any(folder.iterdir()) else "an empty folder")]


def _jobs(folder: Path) -> list[ReadRun | LeftOut]:
    try:
        jobs = read_jobs(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [LeftOut(folder, f"its jobs cannot be read: {error!r}")]
    found: list[ReadRun | LeftOut] = []
    for index, job in enumerate(jobs):
        if job.error:
            words = " ".join(f"{key}={value}" for key, value in job.overrides.items())
            found.append(LeftOut(folder / "jobs" / f"{index}.json", f"{words}: refused: {job.error}"))
        else:
            found.append(ReadRun(job.run.folder) if job.run.folder.is_dir() else LeftOut(job.run.folder, "never begun"))
    return found or [LeftOut(folder, "a sweep without jobs")]
