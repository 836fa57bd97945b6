"""Which runs are meant by the folders that a report is given."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from commexp.files import printable
from commexp.report.aggregate import Job, read_jobs
from commexp.report.catalogue import BEGUN, DEPTH, MOST
from commexp.report.checked import LeftOut, ReadRun

MOST_RUNS = 2000  # that are read
SOON, OFTEN = 1.0, 5.0  # seconds after which the user is told what is being done, and between two such lines


def read_runs(folders: Sequence[Path]) -> tuple[list[ReadRun], list[LeftOut]]:
    """The runs that ``folders`` are or hold, each once and read, and the folders that hold none. What takes long says
    on stderr how far it is."""
    runs: dict[str, ReadRun] = {}
    left: dict[str, LeftOut] = {}
    lines = _Lines()
    for folder in folders:
        for one in _Search(folder, lines).inside(folder):
            kept: dict[str, Any] = left if isinstance(one, LeftOut) else runs
            kept.setdefault(os.path.realpath(one.folder), one)
    read = list(runs.values())[:MOST_RUNS]
    if len(runs) > MOST_RUNS:
        why = f"holds more than the {MOST_RUNS:,} runs that are read; give some of the folders within it"
        left[""] = LeftOut(folders[-1], why)
    for number, run in enumerate(read):
        lines.show(f"{number:,} of {len(read):,} runs read")
        run.problem  # noqa: B018  (reads the run's files)
    return read, list(left.values())


class _Lines:
    """Lines that say how far it is: the first after SOON."""

    def __init__(self) -> None:
        self.due = time.monotonic() + SOON

    def show(self, text: str) -> None:
        if time.monotonic() > self.due:
            self.due = time.monotonic() + OFTEN
            print(f"commexp: note: {text}", file=sys.stderr, flush=True)


class _Search:
    """For the runs in one folder."""

    def __init__(self, top: Path, lines: _Lines) -> None:
        self.top, self.lines, self.seen, self.found = top, lines, 0, 0

    def inside(self, folder: Path, depth: int = 0) -> list[ReadRun | LeftOut]:
        """A run; the runs of a sweep, in its order; those of a folder of runs, which may be deeper. Where runs lie
        beside a folder that holds none, that is left out by its name."""
        where = f"{printable(str(self.top))}: looking for runs"
        self.lines.show(f"{where}: {self.seen + self.found:,} folders looked at, {self.found:,} runs found")
        if not os.path.isdir(folder):
            return [LeftOut(folder, "is no folder" if os.path.lexists(folder) else "no such folder")]
        if any(os.path.lexists(folder / name) for name in BEGUN):
            self.found += 1
            return [ReadRun(folder)]
        if os.path.isdir(folder / "jobs"):
            return list(_jobs(folder))
        self.seen += 1
        if self.seen > MOST or depth > DEPTH:
            return [LeftOut(self.top, f"holds more than {MOST} folders, or {DEPTH} within each other, without a run")]
        try:
            with os.scandir(folder) as entries:
                names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            return [LeftOut(folder, f"cannot be read: {error.strerror}")]
        parts = [folder / name for name, is_folder in sorted(names) if is_folder and name[0] != "."]
        inside: list[ReadRun | LeftOut] = []
        for part in parts:
            inside += self.inside(part, depth + 1) if self.seen <= MOST and self.found <= MOST_RUNS else []
        if any(isinstance(one, ReadRun) for one in inside):
            beside = {one.folder.parent for one in inside if isinstance(one, ReadRun)}
            return [one for one in inside if self._is_told(one, beside)]
        many = [one for one in inside if one.folder == self.top]
        return many[:1] or [LeftOut(folder, "holds no run" if names else "an empty folder")]

    def _is_told(self, one: ReadRun | LeftOut, beside: set[Path]) -> bool:
        return (
            isinstance(one, ReadRun) or one.folder == self.top or one.folder.parent in beside or not one.folder.is_dir()
        )


def _jobs(folder: Path) -> Iterator[ReadRun | LeftOut]:
    jobs = read_jobs(folder)
    for job in jobs:
        if isinstance(job, Job) and job.error:
            words = " ".join(f"{key}={value}" for key, value in job.overrides.items())
            yield LeftOut(job.path, printable(f"{words}: refused: {job.error}"))
        elif isinstance(job, Job):
            yield job.run if os.path.isdir(job.run.folder) else LeftOut(job.run.folder, "never begun")
        else:
            yield job
    if not jobs:
        yield LeftOut(folder, "a sweep without jobs")
