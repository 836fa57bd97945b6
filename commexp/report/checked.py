"""A run's folder that may come from a stranger: each file is read once, and a line says what is wrong with it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from commexp.files import printable, read_json
from commexp.metrics import adopt, number, shown
from commexp.report.bits import bits_per_worker
from commexp.report.tables import flatten, labels, phase_seconds
from commexp.run_folder import Run

COUNTED = ("step", "bytes_sent", "wall_seconds", "sim_seconds")  # columns of every metrics.csv


@dataclass(frozen=True)
class LeftOut:
    """A folder or file that has no run, and why."""

    folder: Path
    why: str

    @property
    def name(self) -> str:
        return printable(str(self.folder))


class ReadRun(Run):
    """A run's folder whose texts can be shown anywhere, see ``printable``. ``problem``: the first file that is not what
    a run leaves, and why; empty where there is none. Of one with a problem, ``name``, ``meta`` and ``state`` are all
    that can be asked. What meta.json says of columns that commexp does not know is registered."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        adopt(self.meta.get("metrics"))

    @property
    def name(self) -> str:
        return printable(self.folder.name)

    @property
    def state(self) -> str:
        return f"{self.status or 'unknown'}{', unreadable' if self.problem else ''}"

    @property
    def reason(self) -> str:
        """Why it has a problem, or what its end left in meta.json; on one line."""
        return self.problem or " ".join(str(self.meta.get("error", "")).split())

    @cached_property
    def meta(self) -> dict[str, Any]:
        texts: dict[str, Any] = _shown(super().meta)
        return {key: value for key, value in texts.items() if key not in ("status", "name") or isinstance(value, str)}

    @cached_property
    def config(self) -> dict[str, Any]:
        texts: dict[str, Any] = _shown(super().config)
        return texts

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """With the bits per worker, where traffic.csv tells them."""
        return self._rows.assign(**{name: bits[:-1] for name, bits in self._bits.items()})

    @cached_property
    def _rows(self) -> pd.DataFrame:
        return super().metrics.rename(columns=printable)

    @cached_property
    def _bits(self) -> dict[str, np.ndarray]:
        """See bits_per_worker: up to each row of metrics.csv, and of all rounds; nothing where a file cannot be read,
        which ``problem`` names."""
        try:
            rounds = [*self._rows["round"], math.inf]
            found = bits_per_worker(self.traffic, int(self.config["workers"]), rounds)
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError):
            return {}
        return {str(name): column.to_numpy() for name, column in found.items()}

    @cached_property
    def traffic(self) -> pd.DataFrame:
        return super().traffic

    @cached_property
    def summary(self) -> dict[str, Any]:
        """With the bits per worker of all rounds. Of a run that has not ended, from what it has evaluated so far."""
        if os.path.lexists(self.folder / "summary.json") or self.metrics.empty:
            ended: dict[str, Any] = _shown(super().summary)
            return {**ended, **{name: float(bits[-1]) for name, bits in self._bits.items()}}
        return {
            "parameters": self.meta.get("parameters", math.nan),
            **{str(column): value for column, value in self.metrics.iloc[-1].items()},
            **{m.best: m.pick(self.metrics[m.name].dropna()) for m in shown("best") if m.name in self.metrics},
        }

    @cached_property
    def phases(self) -> dict[str, float]:
        return phase_seconds(self)

    @cached_property
    def problem(self) -> str:
        checks: dict[str, Callable[[], str]] = {
            "meta.json": self._wrong_meta,
            "config.yaml": self._wrong_config,
            "metrics.csv": lambda: _not_numbers(self.metrics, *COUNTED),
            "summary.json": self._wrong_summary,
            "traffic.csv": self._wrong_traffic,
            "topology.csv": self._wrong_graph,
        }
        for name, wrong in checks.items():
            try:
                why = wrong()
            except Exception as error:  # whatever a stranger's file makes of our reading it
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if why:
                return printable(f"{name} cannot be read: {' '.join(why.split())}")
        return ""

    def _wrong_meta(self) -> str:
        """JSON that cannot be read counts as none elsewhere."""
        content = read_json(self.folder / "meta.json") if _there(self, "meta.json") else {}
        if not isinstance(content, dict):
            return "holds no keys with values"
        for key in ("status", "name"):
            if not isinstance(content.get(key, ""), str):
                return f"{key}: no text"
        return ""

    def _wrong_config(self) -> str:
        if missing := {"seed", "compress", "algo"} - self.config.keys():
            return f"lacks {', '.join(sorted(missing))}"
        for key in ("compress", "algo"):
            node = self.config[key]
            if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
                return f"{key}={node}: no component"
        values = {key: self.config.get(key) for key in ("target_accuracy", "target_loss")}
        values["compress.k"] = self.config["compress"].get("k")
        for key, value in values.items():
            if value is not None:
                number(value)
            if isinstance(value, str):
                return f"{key}={value}: no number"
        for value in flatten(self.config).values():
            str(value)
        labels([self])
        return ""

    def _wrong_summary(self) -> str:
        if _there(self, "summary.json") and not isinstance(read_json(self.folder / "summary.json"), dict):
            return "holds no keys with values"
        listed = (*shown("table"), *shown("cost"))
        known = {*(m.name for m in listed), *(m.best for m in listed), "round", "parameters"}
        for key in known & self.summary.keys():
            number(self.summary[key])
        return ""

    def _wrong_traffic(self) -> str:
        wrong = _not_numbers(self.traffic.drop(columns=["exchange", "direction"], errors="ignore"))
        self.phases  # noqa: B018
        return wrong

    def _wrong_graph(self) -> str:
        if _there(self, "topology.csv"):
            from commexp.report.topology import read_weights  # which loads what draws graphs

            read_weights(self)
        return ""


def _there(run: Run, name: str) -> bool:
    """Whether a file has that name, whatever it is."""
    return os.path.lexists(run.folder / name)


def _shown(value: Any) -> Any:
    """With every text printable."""
    if isinstance(value, dict):
        return {printable(key) if isinstance(key, str) else key: _shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _not_numbers(table: pd.DataFrame, *columns: str) -> str:
    """What is wrong with a table that is to hold numbers only, ``round`` and ``columns`` among them."""
    if not len(table.columns):
        return ""
    if missing := [c for c in ("round", *columns) if c not in table]:
        return f"there is no column {missing[0]}"
    for column in table if len(table) else ():
        if not pd.api.types.is_numeric_dtype(table[column]):
            lines = pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()
            row = int(lines.to_numpy().argmax())
            return f"line {row + 2}, column {column}: {str(table[column].iloc[row])[:40]!r} is no number"
    return ""
