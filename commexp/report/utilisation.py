"""A plan: what each method sends, how long it takes, and on which links it keeps the devices busy."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from commexp.metrics import human_bytes
from commexp.report.tables import as_text, markdown
from commexp.run_folder import as_csv, write_atomic

LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)
BUSY = 0.9  # the utilisation with which a method is recommended
ESTIMATE = "~"


class Point(NamedTuple):
    """With links of ``mbit`` Mbit/s. ``utilisation``: None where nothing is known of computing."""

    mbit: float
    utilisation: float | None
    hours: float


@dataclass(frozen=True)
class PlanRow:
    """A method with its settings. ``methods``, ``setting``: what it is called; several methods that send the same in
    the same time share a row. ``steps``: local steps of a worker. ``step_bytes``, ``sent``, ``wire``: bytes that a
    worker sends in a step, in all, and on the links. ``exchange``: seconds of an exchange. ``utilisation``: None where
    nothing is known of computing. ``needs``: Mbit/s for each of LEVELS; None where no bandwidth suffices. ``curve``:
    with other bandwidths. ``estimates``: why a number is no more than an estimate."""

    methods: tuple[str, ...]
    setting: str
    steps: int
    step_bytes: float
    sent: float
    wire: float
    exchange: float
    utilisation: float | None
    hours: float
    needs: Mapping[float, float | None]
    curve: Sequence[Point]
    estimates: Sequence[str] = ()

    @property
    def name(self) -> str:
        return " ".join(filter(None, (", ".join(self.methods), self.setting)))

    @property
    def figures(self) -> tuple[Any, ...]:
        return self.setting, self.step_bytes, self.hours, tuple(self.curve), tuple(self.estimates)


def merged(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """One row for methods with the same setting that send the same in the same time."""
    joined: list[PlanRow] = []
    for row in rows:
        same = next((i for i, other in enumerate(joined) if other.figures == row.figures), None)
        if same is None:
            joined.append(row)
        else:
            joined[same] = replace(joined[same], methods=joined[same].methods + row.methods)
    return joined


def plan_tables(rows: Sequence[PlanRow]) -> list[str]:
    """What a worker sends and how long it takes; then the bandwidth that each utilisation needs; then what is an
    estimate."""
    heads = ["method", "sent/step", "in all", "exchange", "busy", "hours"]
    blocks: list[str] = [markdown(heads, [[row.name, *_costs(row)] for row in rows])]
    if any(row.utilisation is not None for row in rows):
        heads = ["busy for", *(f"{level:.0%}" for level in LEVELS)]
        blocks += [
            "Bandwidth in bit/s with which the devices are busy for this share of the time:",
            markdown(heads, [[row.name, *_needs(row)] for row in rows]),
        ]
    reasons = {reason: [r.name for r in rows if reason in r.estimates] for row in rows for reason in row.estimates}
    return blocks + [f"{ESTIMATE} {reason}: {'; '.join(names)}" for reason, names in reasons.items()]


def _costs(row: PlanRow) -> list[str]:
    busy = "-" if row.utilisation is None else f"{100 * row.utilisation:.3g} %"
    mark = ESTIMATE if row.estimates else ""
    times = [seconds_text(row.exchange), busy, f"{row.hours:.3g}"]
    return [mark + human_bytes(row.step_bytes), human_bytes(row.sent), *times]


def _needs(row: PlanRow) -> list[str]:
    each = (row.needs[level] for level in LEVELS)
    return ["never" if mbit is None else bandwidth_text(mbit, "") for mbit in each]


def seconds_text(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 or not seconds else f"{1e3 * seconds:.3g} ms"


def bandwidth_text(mbit: float, unit: str = "bit/s") -> str:
    for size, prefix in ((1e6, "T"), (1e3, "G"), (1.0, "M")):
        if mbit >= 0.9995 * size:
            return f"{mbit / size:.3g} {prefix}{unit}"
    return f"{1e3 * mbit:.3g} k{unit}"


def recommendation(rows: Sequence[PlanRow], bandwidth: float) -> str:
    """One sentence. The rows go from what changes training least to what changes it most."""
    where = f"at {bandwidth_text(bandwidth)}"
    caution = "by time alone, for the accuracy is not known; --from RUN joins runs that have it"
    if rows[0].utilisation is None:
        best = min(rows, key=lambda row: row.hours)
        return f"{best.name}, which spends the least time on communication {where} ({caution})."
    enough = [row for row in rows if (row.utilisation or 0.0) >= BUSY]
    if enough:
        order = "the first of those listed, which go from small changes of the training to large ones"
        return f"{enough[0].name}, {order}, that is busy for {BUSY:.0%} of the time or more {where} ({caution})."
    best = max(rows, key=lambda row: row.utilisation or 0.0)
    share = f"{100 * (best.utilisation or 0.0):.3g} %"
    closest = f"{best.name}, which comes closest with {share}"
    return f"{closest}: nothing is busy for {BUSY:.0%} of the time {where} ({caution})."


def write_plan(rows: Sequence[PlanRow], bandwidth: float, blocks: Sequence[str], out: Path) -> list[Path]:
    """plan.md, which holds ``blocks``; plan.csv, a row per method; utilisation.csv, a row per method and bandwidth, and
    its figure."""
    table = [
        {
            "method": row.name,
            "steps": row.steps,
            "bytes_sent_per_step": row.step_bytes,
            "bytes_sent": row.sent,
            "bytes_wire": row.wire,
            "exchange_seconds": row.exchange,
            "utilisation": row.utilisation,
            "hours": row.hours,
            **{f"mbit_for_{100 * level:.0f}": row.needs[level] for level in LEVELS},
            "estimates": "; ".join(row.estimates),
        }
        for row in rows
    ]
    points = [
        {"method": row.name, "mbit": mbit, "utilisation": share, "hours": hours}
        for row in rows
        for mbit, share, hours in row.curve
    ]
    written = [out / "plan.md", out / "plan.csv", out / "utilisation.csv"]
    write_atomic(written[0], as_text(blocks))
    for path, lines in zip(written[1:], (table, points), strict=True):
        write_atomic(path, as_csv(lines, list(lines[0])))
    if rows[0].utilisation is not None:
        written += draw_utilisation(rows, bandwidth, out / "utilisation")
    return written


def draw_utilisation(rows: Sequence[PlanRow], bandwidth: float, path: Path) -> list[Path]:
    """Utilisation against bandwidth, a line per row; the legend goes from what needs the least bandwidth to what needs
    the most. ``bandwidth``: that of the plan, a grey band. The grey line is at BUSY."""
    from commexp.report.looks import BASELINE, chosen  # half a second of imports
    from commexp.report.style import figure, log_scale, percent_axis, save

    methods = {row.name: BASELINE if row.methods == ("dense",) else row.methods for row in rows}
    looks = chosen(methods, {row.name: -row.step_bytes for row in rows})
    few = sorted(rows, key=lambda row: sum(share or 0.0 for _, share, _ in row.curve), reverse=True)
    lines = [textwrap.fill(row.name, 34, subsequent_indent="   ") for row in few]
    height = 3.4 + 0.15 * sum(line.count("\n") + 1 for line in lines) / 3
    with figure(1, 1, 7.2, height) as (made, (axis,)):
        axis.axvline(bandwidth, color="0.75", linewidth=5, zorder=0)
        axis.axhline(BUSY, color="0.75", linewidth=0.8, zorder=0)
        for row, label in zip(few, lines, strict=True):
            mbit, shares = zip(*((m, s) for m, s, _ in row.curve), strict=True)
            axis.plot(mbit, shares, label=label, **looks[row.name].line)
        log_scale(axis.xaxis, bandwidth_text)
        axis.set_xlim(rows[0].curve[0][0], rows[0].curve[-1][0])
        axis.set_ylim(0, 1.02)
        percent_axis(axis, "utilisation of the devices")
        axis.set_xlabel("bandwidth of a worker's link")
        made.legend(loc="outside lower center", ncols=3, fontsize=7, handlelength=3)
        return save(made, path)
