"""Rates that a study tries for each of its methods on a validation set, and the file in which it keeps the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from commexp.check.batch import Command, result, run_all
from commexp.run_folder import Run, write_json

Rates = dict[str, float]
Spaces = Mapping[str, Sequence[Rates]]


def loss(run: Run) -> float:
    """The last test loss; infinity for a run that has diverged."""
    return float(run.metrics["test_loss"].iloc[-1]) if run.status == "completed" else math.inf


def fields(rates: Rates) -> Command:
    return tuple(f"algo.{name}={value:g}" for name, value in rates.items())


def shown(rates: Rates) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in rates.items())


def tune(path: Path, spaces: Spaces, words: Callable[[str, Rates], Command]) -> None:
    """Writes, for each method, the rates of its space with the smallest loss. ``words``: of the run that tries them, on
    validation data."""
    run_all(words(method, rates) for method, space in spaces.items() for rates in space)
    found = {}
    for method, space in spaces.items():
        losses = [loss(result(words(method, rates))) for rates in space]
        best = min(range(len(losses)), key=losses.__getitem__)
        found[method] = {"rates": space[best], "validation_loss": losses[best]}
    write_json(path, found)


def tuned(path: Path) -> dict[str, Rates]:
    """The rates that ``tune`` has found, by method."""
    return {method: found["rates"] for method, found in json.loads(path.read_text(encoding="utf-8")).items()}
