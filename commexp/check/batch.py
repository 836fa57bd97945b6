"""Many runs, a few at a time, on one core each; what is finished is used again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from multiprocessing import get_context

from commexp.api import run_experiment
from commexp.run_folder import Run

Command = tuple[str, ...]
_done: dict[Command, Run] = {}  # in this process: composing a config again takes a fraction of a second


def result(command: Sequence[str]) -> Run:
    """Carries the run out, if it is not finished."""
    key = tuple(command)
    if key not in _done:
        _done[key] = run_experiment([*command, "launch.threads=1"], figures=False)
    return _done[key]


def run_all(commands: Iterable[Sequence[str]], jobs: int = 2) -> dict[Command, Run]:
    """Every command's run. Raises what the first that cannot be run has raised, when the others are done."""
    outcomes = attempt_all(commands, jobs)
    for outcome in outcomes.values():
        if isinstance(outcome, Exception):
            raise outcome
    return {command: run for command, run in outcomes.items() if isinstance(run, Run)}


def attempt_all(commands: Iterable[Sequence[str]], jobs: int = 2) -> dict[Command, Run | Exception]:
    """Every command's run, or what it has raised."""
    todo = list(dict.fromkeys(map(tuple, commands)))
    outcomes: dict[Command, Run | Exception] = {command: _done[command] for command in todo if command in _done}
    new = [command for command in todo if command not in outcomes]
    if new:
        with get_context("spawn").Pool(min(jobs, len(new))) as pool:
            for command, outcome in pool.imap_unordered(_attempt, new):
                outcomes[command] = outcome
                if isinstance(outcome, Run):
                    _done[command] = outcome
                print(f"\r{len(outcomes)} of {len(todo)} runs", end="", file=sys.stderr, flush=True)
            pool.close()  # or they would be killed with what their libraries have not put away
            pool.join()
        print(file=sys.stderr)
    return {command: outcomes[command] for command in todo}


def _attempt(command: Command) -> tuple[Command, Run | Exception]:
    try:
        return command, result(command)
    except Exception as error:
        return command, error.with_traceback(None)
