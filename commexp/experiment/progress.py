"""What the user sees during a run: a progress bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

from commexp.metrics import METRICS, human_bytes
from commexp.ranks import Sweep

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
SOON = 2.0  # seconds after which the user may wonder what is being done


class Progress:
    """Round, the metrics of the registry that have a format for it (loss, accuracy, ...), bytes sent, time left; in a
    sweep which job it is, and the time left for all of them. ``name``: of the run."""

    def __init__(self, name: str, rounds: int, first: int, shown: bool = True) -> None:
        self.name, self.rounds, self.first, self.sweep = name, rounds, first, Sweep.told()
        self.terminal = shown and sys.stderr is not None and sys.stderr.isatty()
        self.begin = self.last_line = time.monotonic()

    def __enter__(self) -> Progress:
        begins = "{bar:8} {n_fmt}/{total_fmt} rounds, {remaining} left"
        if self.sweep is not None:  # the line before has the run's name
            begins = f"{self.sweep.place[4:]}: {{n_fmt}}/{{total_fmt}}, {{remaining}} left"
        elif self.terminal:
            print(self.name, file=sys.stderr, flush=True)
        self.bar = tqdm(
            total=self.rounds,
            initial=self.first,
            bar_format=begins + "{postfix}",
            disable=not self.terminal,
            dynamic_ncols=True,
            leave=False,
        )
        return self

    def show(self, done: int, row: Mapping[str, Any]) -> str | None:
        """Shows an evaluation; returns the line for the log when one is due."""
        text, of_all = _values(row), remaining(self.sweep, done / self.rounds)
        self.bar.set_postfix_str(f"sweep{of_all[1:-5]}, {text}" if of_all else text, refresh=False)
        self.bar.update(done - self.bar.n)
        now = time.monotonic()
        if done not in (0, self.rounds) and now - self.last_line < SECONDS_BETWEEN_LINES:
            return None
        self.last_line = now
        left = (now - self.begin) / max(1, done - self.first) * (self.rounds - done)
        line = f"round {done}/{self.rounds}  {text}" + (f"  {left:.0f} s left" if 0 < done < self.rounds else "")
        if not self.terminal and done:
            job = f"{self.sweep.place}{of_all}  " if self.sweep is not None else ""
            print(f"{self.name}  {job}{line}", file=sys.stderr, flush=True)
        return line

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()


def remaining(sweep: Sweep | None, share: float = 0.0) -> str:
    """The time left for all jobs of a sweep; nothing where that is unknown. ``share``: of this job that is done."""
    left = None if sweep is None else sweep.left(time.time(), share)
    return "" if left is None else f", {tqdm.format_interval(left)} left"


def _values(row: Mapping[str, Any]) -> str:
    parts = [f"{m.short} {row[m.name]:{m.progress}}" for m in METRICS.values() if m.progress and m.name in row]
    return "  ".join([*parts, f"sent {human_bytes(row['bytes_sent'])}"])


def checking(jobs: Sequence[T]) -> Iterator[T]:
    """Yields the jobs of a sweep. Shows the progress of their check if it takes longer than SOON."""
    terminal, due = sys.stderr.isatty(), math.inf
    for done, job in enumerate(tqdm(jobs, "checking", delay=SOON, disable=not terminal, unit=" jobs", leave=False)):
        if not terminal and time.monotonic() > due:
            due = time.monotonic() + SECONDS_BETWEEN_LINES
            text = f"commexp: note: checking the sweep's {len(jobs)} jobs before the first begins: {done} done"
            print(text, file=sys.stderr, flush=True)
        yield job
        if not done:  # the first one waits for what it imports
            due = time.monotonic() + SOON
