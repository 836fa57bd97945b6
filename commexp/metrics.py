"""The metrics: what each column of metrics.csv and value of summary.json is called, how it reads, where it is shown.

The end of a run, its figures, the tables of runs and sweeps, the page, the line of progress and hydra's optimisers ask
here. A component from outside registers its own columns beside where it computes them:

    register(Metric("test_f1", "test F1", better="higher", scale="percent", shown=("table", "curves", "best")))

A column without an entry is kept in metrics.csv and may be chosen on the page, under its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from typing import Any

#: where a metric may be shown
PLACES = {
    "table": "a row of summary.md, a column of the tables of runs and of sweeps",
    "best": "summary.json keeps its best value over all evaluations, as best_<name>",
    "best in sweeps": "the table of a sweep has that, too",
    "curves": "a row of panels of the figures of curves",
    "page": "a column of the page's tables of methods and of runs",
    "final": "the page's first curve, and the figure of a sweep's final values: the foremost that there is",
    "replay": "the curves of commexp-report --replay: the foremost that all runs have",
    "tuned": "what hydra/sweeper=optuna improves: the best value of the foremost that a run has",
    "axis": "what curves of the page may be drawn against",
    "work": "what curves of figures are drawn against: the last one that all runs have",
    "cost": "a column of runs.csv and sweep.csv",
}
FIRST = 3  # rounds that hold what happens once, such as loading code: medians of measured seconds leave them out
SCALES = ("number", "percent", "bytes", "bits", "count")
NAME = re.compile(r"(?!best_)[A-Za-z]\w{0,63}(?<!_std)", re.ASCII)
TAKEN = {  # columns of a sweep's tables that are no metrics
    "method", "seed", "status", "run", "count", "target", "target_is_loss", "reached_target", "bytes_to_target",
    "seconds_to_target", "compression", "abscissa", "stopped_by",
}  # fmt: skip
MOST = 100  # metrics that a run's folder may describe


@dataclass(frozen=True)
class Metric:
    """``name``: of the column. ``label``: what figures and tables call it; the name with spaces if empty. ``short``:
    the same where there is little room. ``unit``: of an axis. ``better``: ``higher`` or ``lower``; empty where neither
    is. ``scale``: one of SCALES: how it is written, and which axis it has; a ``number`` has a logarithmic one where its
    values allow it. ``shown``: some of PLACES. ``headline``: where one metric stands for a run, that of the greatest.
    ``progress``: how the line of progress writes it, a format such as ``.3g``; empty: not at all. ``replaces``: a
    metric that is not shown beside it. Raises ValueError for anything else.
    """

    name: str
    label: str = ""
    short: str = ""
    unit: str = ""
    better: str = ""
    scale: str = "number"
    shown: tuple[str, ...] = ("table",)
    headline: int = 0
    progress: str = ""
    replaces: str = ""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale={self.scale}: no such scale; give one of {', '.join(SCALES)}")
        if wrong := [place for place in self.shown if place not in PLACES]:
            raise ValueError(f"shown={wrong[0]}: no such place; give some of {', '.join(PLACES)}")
        if self.better not in ("", "higher", "lower") or ({"best", "tuned"} & {*self.shown} and not self.better):
            raise ValueError(f"better={self.better}: give higher or lower; no best value is kept of what has neither")
        format(0.0, self.progress)  # raises ValueError for no format
        object.__setattr__(self, "label", self.label or self.name.replace("_", " "))
        object.__setattr__(self, "short", self.short or self.label)

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def best(self) -> str:
        """The value of summary.json that is the best one over all evaluations."""
        return f"best_{self.name}"

    def pick(self, values: Any) -> Any:
        """The best of several values; NaN of none."""
        return max(values, default=math.nan) if self.better == "higher" else min(values, default=math.nan)

    def show(self, value: Any) -> str:
        """A value as people read it; '-' where there is none. JSON has NaN and infinity as strings."""
        v = number(value)
        if math.isnan(v):
            return "-"
        if self.scale in SIZES:
            return SIZES[self.scale](v, 0.0)
        if self.scale == "count":
            return human_count(v)
        return f"{v:.2%}" if self.scale == "percent" else f"{v:.4g}"

    def plus_minus(self, mean: float, std: float) -> str:
        """A mean and its standard deviation; the mean alone where there is no other."""
        if self.scale in SIZES:
            return "-" if math.isnan(mean) else SIZES[self.scale](mean, std)
        if math.isnan(std):
            return self.show(mean)
        return f"{self.show(mean)} ± " + (f"{100 * std:.2f}" if self.scale == "percent" else f"{std:.2g}")


ERROR = ("table", "best")
OWN = (
    # of every run: experiment/summary.py
    Metric("round", "rounds", shown=("axis",)),
    Metric("step", "local steps", shown=("axis", "work")),
    Metric("epoch", "epochs", shown=("axis",)),
    Metric("samples", "samples, all workers", shown=("axis",)),
    Metric("tokens", "tokens, all workers", "tokens", scale="count", shown=("axis", "work", "cost")),
    Metric("samples_per_node", "sample gradients of a node", scale="count", shown=("axis", "work")),
    Metric("calls", "messages to the server", scale="count", shown=("axis", "work")),
    Metric("gossip_rounds", "mixings", shown=("axis",)),
    # comm/ledger.py and the clocks
    Metric("bytes_info", "bytes of information, all workers", "info", scale="bytes", shown=("axis", "cost")),
    Metric("bytes_sent", "bytes sent, all workers", "sent", scale="bytes", shown=("axis", "cost")),
    Metric("bytes_wire", "bytes on the wire, all links", "wire", scale="bytes", shown=("axis", "cost")),
    Metric("bytes_between", "bytes on links between islands", "between", scale="bytes", shown=("axis", "cost")),
    # report/bits.py, from traffic.csv
    Metric("bits_up", "bits sent per worker", "bits up", scale="bits", shown=("axis", "cost")),
    Metric("bits_down", "bits sent back per worker", "bits down", scale="bits", shown=("axis", "cost")),
    Metric("bits_both", "bits per worker, both ways", "bits both ways", scale="bits", shown=("axis", "cost")),
    Metric("bytes_against_dense", "bytes sent, as a share of dense", "sent / dense", shown=("cost",)),
    Metric("wall_seconds", "time computing here", "time here", "s", shown=("axis", "cost"), headline=-1),
    Metric("sim_seconds", "time on the virtual clock", "virtual time", "s", shown=("axis", "cost")),
    # problems: evaluate, objective and composite
    Metric("train_loss", short="loss", better="lower", headline=1, progress=".3g",
           shown=(*ERROR, "curves", "page", "final", "replay", "tuned")),
    Metric("objective", better="lower", headline=2, replaces="train_loss",
           shown=(*ERROR, "curves", "page", "final", "replay", "tuned")),
    Metric("test_loss", better="lower", shown=ERROR),
    Metric("test_accuracy", short="accuracy", better="higher", scale="percent", headline=7, progress=".1%",
           shown=(*ERROR, "best in sweeps", "curves", "page", "final", "replay", "tuned")),
    Metric("test_perplexity", "test perplexity", short="perplexity", better="lower", headline=6, progress=".4g",
           shown=(*ERROR, "best in sweeps", "curves", "page", "final", "tuned")),
    Metric("test_bits_per_byte", "test bits per byte", short="bits per byte", better="lower", shown=ERROR),
    Metric("train_rmse", "train RMSE", better="lower", shown=ERROR),
    Metric("test_rmse", "test RMSE", short="RMSE", better="lower", headline=5, progress=".4f",
           shown=(*ERROR, "curves", "page", "final", "tuned")),
    Metric("excess_loss", better="lower", shown=ERROR),
    Metric("dist_to_opt", "distance to optimum", short="distance", better="lower", headline=4, progress=".1e",
           shown=(*ERROR, "curves", "page", "final")),
    Metric("stationarity", "squared gradient norm", better="lower", headline=3, shown=(*ERROR, "curves", "page")),
    # the algorithms' diagnostics
    Metric("consensus", better="lower"),
    Metric("nonzero", "nonzero entries", scale="percent"),
    Metric("valley_width", better="higher"),
    # diagnostics/, after the last round
    Metric("mean_valley", better="higher"),
    Metric("sharpness", better="lower"),
    Metric("generalisation_gap", better="lower"),
    # columns that only the page shows, by choice
    Metric("train_accuracy", better="higher", scale="percent", shown=()),
    Metric("valley_limit", shown=()),
    Metric("staleness", better="lower", shown=()),
    Metric("disagreement", better="lower", shown=()),
    Metric("dropped", better="lower", shown=()),
    Metric("answers", better="higher", shown=()),
)  # fmt: skip
#: by name, in the order in which tables have them
METRICS = {metric.name: metric for metric in OWN}


def register(*metrics: Metric) -> None:
    """Adds entries; a later one replaces an earlier one from outside. Raises ValueError for the name of one of OWN, for
    what is no column's name, and for a word that tables need themselves."""
    for metric in metrics:
        if METRICS.get(metric.name) in OWN or metric.name in TAKEN or not NAME.fullmatch(metric.name):
            raise ValueError(f"name={metric.name}: no free name of a metric; give another, of letters, digits and _")
        METRICS[metric.name] = metric


def metric(name: str) -> Metric:
    """The entry of a column; an unregistered column gets an entry made from its name."""
    return METRICS.get(name) or Metric(name, shown=())


def shown(place: str) -> list[Metric]:
    """The metrics that are shown there, in the order of tables."""
    assert place in PLACES, place
    return [m for m in METRICS.values() if place in m.shown]


def foremost(place: str) -> list[Metric]:
    """The same, those first that say most about a run."""
    return sorted(shown(place), key=lambda m: -m.headline)


def tuned(names: Container[str]) -> Metric | None:
    """What a search improves: the best value of the foremost metric that is tuned for, of those in ``names`` (test
    error, RMSE, objective, training loss); None where there is none."""
    return next((m for m in foremost("tuned") if m.best in names), None)


def described(columns: Iterable[str]) -> list[dict[str, Any]]:
    """What meta.json keeps of the columns from outside, so that a report need not import what has registered them."""
    return [asdict(METRICS[name]) for name in columns if name in METRICS and METRICS[name] not in OWN]


def adopt(descriptions: Any) -> None:
    """Registers what a run's folder describes, which may be anybody's: what is no metric is passed over, and an entry
    that is there stays."""
    for each in descriptions[:MOST] if isinstance(descriptions, list) else ():
        try:
            texts = {key: text for key, text in each.items() if isinstance(text, str) and key != "progress"}
            entry = Metric(**texts, shown=tuple(each["shown"]), headline=int(each["headline"]))
            if entry.name not in METRICS:
                register(entry)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
            continue


def left_out(rounds: int) -> int:
    """How many of the first of so many rounds medians of measured seconds leave out: FIRST, but never all."""
    return min(FIRST, max(0, rounds - 1))


def number(value: Any) -> float:
    """A value of summary.json, where NaN and infinity are strings, as a float; NaN for None."""
    return math.nan if value is None else float(value)


def human_count(count: float) -> str:
    """1234567 -> '1.23 M'."""
    for unit in ("", " k", " M", " G"):
        if abs(count) < 1000 or unit == " G":
            return f"{count:.0f}" if not unit else f"{count:.3g}{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def human_bytes(count: float, spread: float = 0.0) -> str:
    """1234567 -> '1.23 MB' (powers of 1000); with a standard deviation of 56789, '1.23 MB ± 0.057'."""
    return _human(count, spread, "B")


def human_bits(count: float, spread: float = 0.0) -> str:
    """1234567 -> '1.23 Mbit', in the same way."""
    return _human(count, spread, "bit")


def _human(count: float, spread: float, name: str) -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if abs(count) < 1000 or prefix == "T":
            text = f"{count:.3g} {prefix}{name}" if prefix else f"{count:.0f} {name}"
            about = f"{spread:.0f}" if spread >= 99.5 else f"{spread:.2g}"
            return f"{text} ± {about}" if spread > 0 else text
        count, spread = count / 1000, spread / 1000
    raise AssertionError("unreachable")


#: how a value and its standard deviation are written, by scale
SIZES = {"bytes": human_bytes, "bits": human_bits}
