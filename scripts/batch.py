"""Many runs, two at a time, on one core each; what is finished is used again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from multiprocessing import get_context

from commexp.api import run_experiment
from commexp.rundir import Run


def result(command: Sequence[str]) -> Run:
    """Carries the run out, if it is not finished."""
    return run_experiment([*command, "launch.threads=1"], figures=False)


def run_all(commands: Iterable[Sequence[str]]) -> None:
    todo = list(dict.fromkeys(map(tuple, commands)))
    with get_context("spawn").Pool(2) as pool:
        for done, _ in enumerate(pool.imap_unordered(result, todo), 1):
            print(f"\r{done} of {len(todo)} runs", end="", file=sys.stderr)
    print(file=sys.stderr)
