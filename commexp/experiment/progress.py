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

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
SOON = 2.0  # seconds after which the user may wonder what is being done


class Progress:
    """Round, the metrics of the registry that have a format for it (loss, accuracy, ...), bytes sent, time left."""

    def __init__(self, rounds: int, first: int, shown: bool = True) -> None:
        self.rounds, self.first = rounds, first
        self.terminal = shown and sys.stderr is not None and sys.stderr.isatty()
        self.begin = self.last_line = time.monotonic()

    def __enter__(self) -> Progress:
        self.bar = tqdm(
            total=self.rounds,
            initial=self.first,
            bar_format="{bar:8} {n_fmt}/{total_fmt} rounds, {remaining} left{postfix}",
            disable=not self.terminal,
            dynamic_ncols=True,
            leave=False,
        )
        return self

    def show(self, done: int, row: Mapping[str, Any]) -> str | None:
        """Shows an evaluation; returns the line for the log when one is due."""
        text = _values(row)
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(done - self.bar.n)
        now = time.monotonic()
        if done not in (0, self.rounds) and now - self.last_line < SECONDS_BETWEEN_LINES:
            return None
        self.last_line = now
        left = (now - self.begin) / max(1, done - self.first) * (self.rounds - done)
        line = f"round {done}/{self.rounds}  {text}" + (f"  {left:.0f} s left" if 0 < done < self.rounds else "")
        if not self.terminal and done:
            print(line, file=sys.stderr, flush=True)
        return line

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()


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
