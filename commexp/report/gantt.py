"""What workers that do not wait for each other did at first, from gantt.csv, and how old their messages were."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from commexp.report.looks import look_of
from commexp.report.style import figure, save
from commexp.run_folder import Run

WORKERS = 24
CYCLES = 4  # of the slowest worker that is shown
BARS = 40  # of the fastest, which are told apart
KINDS = {"compute": "computes", "wait": "sends, receives, waits"}
WAITING = "0.88"
AGES = 30  # bars of the histogram


def draw_gantt(run: Run, path: Path) -> list[Path]:
    """gantt.csv, columns ``worker``, ``kind`` (compute or wait), ``start``, ``end``: the first seconds, a row for each
    of at most the first 24 workers; beside it staleness.csv, columns ``staleness``, ``messages``. Draws nothing where
    no seconds were kept: a run that went on from a checkpoint after its first cycles."""
    spans, staleness = run.table("gantt"), run.table("staleness")
    if spans.empty or staleness.empty:
        return []
    workers = sorted(spans["worker"].unique())
    shown = workers[:WORKERS]
    spans = spans[spans["worker"].isin(shown)]
    seconds = until(spans)
    with figure(1, 2, 4.1, 0.95 + 0.17 * max(5, len(shown))) as (made, (axis, ages)):
        grid = axis.get_gridspec()
        assert grid is not None
        grid.set_width_ratios([2.2, 1])
        colours = {"compute": look_of(run).colour, "wait": WAITING}
        for kind, colour in colours.items():
            drawn = spans[(spans["kind"] == kind) & (spans["start"] < seconds) & (spans["end"] > spans["start"])]
            rows = drawn["worker"].map({worker: row for row, worker in enumerate(shown)})
            boxes = [
                [(start, row - 0.38), (end, row - 0.38), (end, row + 0.38), (start, row + 0.38)]
                for row, start, end in zip(rows, drawn["start"], drawn["end"].clip(upper=seconds), strict=True)
            ]
            line = 0.4 if kind == "compute" else 0
            axis.add_collection(PolyCollection(boxes, facecolors=colour, edgecolors="white", linewidths=line))
        axis.set(xlim=(float(spans["start"].min()), seconds), ylim=(len(shown) - 0.4, -0.6), ylabel="worker")
        axis.set_yticks(range(len(shown)), [str(worker) for worker in shown])
        axis.tick_params(axis="y", length=0, labelsize=8 if len(shown) <= 16 else 7)
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_xlabel("time (s)" if run.on_wall_clock else "time on the virtual clock (s)")
        axis.grid(False, axis="y")
        axis.set_axisbelow(True)
        if len(workers) > len(shown):
            axis.set_title(f"the first {len(shown)} of {len(workers):,} workers")
        draw_ages(ages, staleness, colours["compute"])
        handles = [Patch(color=colours[kind], label=label) for kind, label in KINDS.items()]
        made.legend(handles=handles, loc="outside upper center", ncols=2, handlelength=1.0, handleheight=1.0)
        return save(made, path)


def until(spans: pd.DataFrame) -> float:
    """Four cycles of the slowest worker, but no more than forty of the fastest, nor than is known of everyone."""
    computing = spans[spans["kind"] == "compute"].sort_values("end").groupby("worker")["end"]
    slowest = max(float(ends.iloc[:CYCLES].iloc[-1]) for _, ends in computing)
    known = min(float(ends.iloc[:BARS].iloc[-1]) for _, ends in computing)
    return max(min(slowest, known), 1e-9)


def draw_ages(axis: Axes, table: pd.DataFrame, colour: str) -> None:
    """How many messages had which staleness, several ages to a bar where there are many."""
    wide = 1 + int(table["staleness"].max()) // AGES
    counts = table.groupby(table["staleness"] // wide)["messages"].sum()
    axis.bar(counts.index * wide + (wide - 1) / 2, counts, width=0.85 * wide, color=colour)
    axis.set(xlabel="staleness of a message", ylabel="messages", xlim=(-0.6, wide * (counts.index[-1] + 1) - 0.4))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.yaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
    axis.grid(False, axis="x")
    axis.set_axisbelow(True)
