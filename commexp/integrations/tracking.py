"""Trackers: services that a run tells its rows. Whatever happens to them, the run goes on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from commexp.ranks import Sweep
from commexp.run_folder import Run

log = logging.getLogger("commexp")


@dataclass(frozen=True)
class RunLabels:
    """What a tracker may sort its runs by. ``sweep``: the name of the sweep to which the run belongs; empty where it
    belongs to none. ``algo``, ``compress``, ``dataset``: names of the components."""

    sweep: str
    algo: str
    compress: str
    dataset: str


class Tracker(Protocol):
    """The class that each module commexp.integrations.<name> defines, <Name>Tracker. Its methods may raise anything."""

    def begin(self, config: Mapping[str, Any], folder: Path, labels: RunLabels) -> None:
        """Opens the tracker's run; where ``folder`` holds the traces of an earlier call, goes on with that one."""

    def row(self, row: Mapping[str, float]) -> None:
        """A row of metrics.csv; its step is ``round``."""

    def end(self, summary: Mapping[str, Any], status: str, figures: Sequence[Path]) -> None:
        """summary.json, how the run ended: completed, interrupted, diverged or failed, and its pictures, as PNG."""


class Trackers:
    """All trackers of a run, in its first process. One that fails is named in a line and told nothing more."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._told = names, dict[str, Tracker]()

    def begin(self, config: Mapping[str, Any], run: Run) -> None:
        sweep, about = Sweep.told(), run.meta
        labels = RunLabels(
            sweep.name if sweep else "", *(str(about[group]) for group in ("algo", "compress", "dataset"))
        )
        self._run = run
        for name in self._names:
            try:
                module = import_module(f"commexp.integrations.{name}")
                tracker: Tracker = getattr(module, f"{name.capitalize()}Tracker")()
                tracker.begin(config, run.folder, labels)
                self._told[name] = tracker
            except ImportError as error:
                self._note(name, f"cannot be imported ({error}); pip install 'commexp[{name}]'")
            except Exception as error:
                self._drop(name, error)

    def row(self, row: Mapping[str, Any]) -> None:
        self._tell("row", numbers(row))

    def end(self, summary: Mapping[str, Any], status: str) -> None:
        """Draws the run's pictures, too, before the end of the run would: trackers want all at once."""
        self._tell("end", summary, status, self._figures() if status in ("completed", "diverged") else [])
        self._told.clear()

    def _figures(self) -> list[Path]:
        if not self._told:
            return []
        from commexp.report.finish import draw  # pandas, which no process needs that trains

        try:
            return draw(self._run)
        except Exception as error:  # that is told again when the run is shown
            log.warning("no pictures for the trackers: %s", error)
            return []

    def _tell(self, method: str, *given: object) -> None:
        for name, tracker in list(self._told.items()):
            try:
                getattr(tracker, method)(*given)
            except Exception as error:
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self._told.pop(name, None)
        self._note(name, f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])

    def _note(self, name: str, text: str) -> None:
        line = f"track={name}: {text}; the run goes on without it"
        log.warning(line)
        print(f"commexp: note: {line}", file=sys.stderr, flush=True)


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"algo": {"lr": 0.1}} -> {"algo.lr": 0.1}"""
    fields: dict[str, Any] = {}
    for key, value in config.items():
        inner = isinstance(value, Mapping) and bool(value)
        fields |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return fields
