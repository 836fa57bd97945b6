"""Several runs side by side: by method, over seeds, with what their configs differ in and what did not finish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from commexp.files import printable
from commexp.report.aggregate import Job, aggregate, per_run
from commexp.report.budgets import EqualCost
from commexp.report.checked import LeftOut, ReadRun
from commexp.report.looks import Look, looks
from commexp.report.naming import named
from commexp.report.settings import on_own_network
from commexp.report.sweep import latex, readable
from commexp.report.tables import PHASES, as_text, compare_markdown, flatten, labels, markdown
from commexp.report.target import Target
from commexp.run_folder import on_clocks

MOST = 1000  # keys in which configs differ
Table = tuple[list[str], list[list[str]]]  # headers, rows


@dataclass(frozen=True)
class Comparison:
    """``runs``: all, also those with a ``problem``, which have a row and nothing else. ``target``: the accuracy
    or loss to report the cost of reaching; that of each run's config if None. ``at``: budgets, see EqualCost.
    ``order``, ``label``: of the methods, see naming.py; raises ValueError for those of none. ``band``: what is drawn
    around a mean, see bands.py."""

    runs: Sequence[ReadRun]
    left: Sequence[LeftOut] = ()
    target: Target | None = None
    at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    order: Sequence[str] = ()
    label: Mapping[str, str] = field(default_factory=dict)
    band: str = "std"

    @cached_property
    def groups(self) -> dict[str, list[ReadRun]]:
        """The readable runs by method; those of a method differ by nothing but the seed."""
        return named([run for run in self.runs if not run.problem], self.order, self.label)

    @cached_property
    def called(self) -> dict[str, str]:
        """What tables for programs call each method: what tells its config apart, whatever its label."""
        runs = [run for run in self.runs if not run.problem]
        raw = dict(zip(map(id, runs), labels(runs, "none"), strict=True))
        return {name: raw[id(each[0])] for name, each in self.groups.items()}

    @cached_property
    def looks(self) -> dict[str, Look]:
        return looks(self.groups)

    @cached_property
    def per_run(self) -> pd.DataFrame:
        """A row per readable run, in the order of ``groups``."""
        jobs = [
            Job({"method": name, "seed": str(run.config["seed"])}, run, self.target or Target.of(run.config))
            for name, runs in self.groups.items()
            for run in runs
        ]
        return per_run(jobs, ["method", "seed"])

    @cached_property
    def methods(self) -> pd.DataFrame:
        """A row per method: mean and standard deviation over its completed runs."""
        return aggregate(self.per_run, ["method", "seed"]) if self.groups else pd.DataFrame()

    @cached_property
    def differences(self) -> Table:
        """The configs' keys of which the runs have several values, and each method's; written with the longer side
        down."""
        flat = {name: [flatten(run.config) for run in runs] for name, runs in self.groups.items()}
        configs = [config for each in flat.values() for config in each]
        keys = dict.fromkeys(key for config in configs for key in config if not key.startswith("preset."))
        told = [key for key in keys if len({str(config.get(key, "")) for config in configs}) > 1]
        if not told:
            return [], []
        if len(told) > MOST:
            return ["key"], [[f"{len(told)} keys, more than the {MOST} that are shown"]]
        columns = [[_several(config.get(key, "") for config in each) for key in told] for each in flat.values()]
        if len(flat) > len(told):
            return ["method", *told], [[name, *values] for name, values in zip(flat, columns, strict=True)]
        return ["key", *flat], [[key, *values] for key, *values in zip(told, *columns, strict=True)]

    @cached_property
    def phases(self) -> dict[str, dict[str, float]]:
        """Milliseconds of a round by method and phase: medians over rounds, means over the runs that measured them."""
        measured = {name: [r.phases for r in runs if r.phases] for name, runs in self.groups.items()}
        return {
            name: {phase: 1e3 * sum(one[phase] for one in each) / len(each) for phase in PHASES}
            for name, each in measured.items()
            if each
        }

    @cached_property
    def equal_cost(self) -> EqualCost:
        """The methods at equal cost; of a single method only where budgets are given."""
        return EqualCost.of(self.groups if len(self.groups) > 1 or self.at else {}, self.at)

    @cached_property
    def best_settings(self) -> list[str]:
        """Which setting of a method reaches the target soonest."""
        return on_own_network(self.groups, self.target)

    @property
    def on_clocks(self) -> str:
        """What is in the virtual seconds of the readable runs."""
        return on_clocks(run for runs in self.groups.values() for run in runs)

    @property
    def unfinished(self) -> list[tuple[str, str, str]]:
        """Name, status and reason of every folder that holds no completed, readable run."""
        unsound = [run for run in self.runs if run.problem or run.status != "completed"]
        told = [(run.name, run.state, run.reason) for run in unsound]
        return told + [(one.name, "no run", one.why) for one in self.left]


def _several(values: Iterable[object]) -> str:
    return printable(", ".join(dict.fromkeys(str(value) for value in values))) or "-"


def as_markdown(compared: Comparison) -> str:
    """The tables of the page, a row per run first."""
    runs = [run for each in compared.groups.values() for run in each]
    blocks: list[str] = [compare_markdown(runs)] if runs else []
    if runs:
        blocks += ["Mean and standard deviation over completed runs:", markdown(*methods_table(compared))]
    blocks += at_equal_cost(compared)
    if compared.phases:
        rows = [[name, *[f"{ms[phase]:.3g}" for phase in PHASES]] for name, ms in compared.phases.items()]
        blocks += ["Milliseconds of a round, medians:", markdown(["method", *PHASES.values()], rows)]
    if compared.differences[1]:
        blocks += ["What the configs differ in:", markdown(*compared.differences)]
    return as_text([*blocks, *left_out(compared)])


def in_brief(compared: Comparison) -> list[str]:
    """What the terminal shows."""
    runs = [run for each in compared.groups.values() for run in each]
    told: list[str] = [compare_markdown(runs)] if runs else []
    return told + at_equal_cost(compared) + left_out(compared)


def at_equal_cost(compared: Comparison) -> list[str]:
    """Tables by budget, and a list of sentences."""
    sentences = "\n".join(f"* {text}" for text in compared.best_settings)
    return compared.equal_cost.markdown() + (["Soonest to the target:", sentences] if sentences else [])


def as_latex(compared: Comparison) -> str:
    """The table of methods and that of differences, for a paper."""
    tables = [methods_table(compared)] if compared.groups else []
    return "\n".join(latex(*table) for table in (*tables, compared.differences) if table[1])


def methods_table(compared: Comparison) -> Table:
    return readable(compared.methods, ["method"], compared.on_clocks)


def left_out(compared: Comparison) -> list[str]:
    rows = [list(row) for row in compared.unfinished]
    return ["Left out or not finished:", markdown(["run", "status", "why"], rows)] if rows else []
