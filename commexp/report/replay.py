"""What several networks make of the same runs: accuracy against time, and where compression begins to pay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from commexp.metrics import foremost, human_bytes
from commexp.report.style import figure, line_style, log_scale, percent_axis, save
from commexp.report.tables import markdown
from commexp.report.target import Target

SHOWN = (10.0, 100.0, 1000.0, 10000.0)  # Mbit/s


@dataclass
class Priced:
    """A run's metrics, and its seconds at each evaluation for each bandwidth in Mbit/s."""

    metrics: pd.DataFrame
    seconds: Mapping[float, Sequence[float]]

    def on(self, bandwidth: float) -> pd.DataFrame:
        return self.metrics.assign(sim_seconds=self.seconds[bandwidth])

    def to_goal(self, bandwidth: float, target: Target | None) -> float:
        """Seconds to the target; to the end where there is none; infinity where it is not reached."""
        priced = self.on(bandwidth)
        if target is None or target.column(priced) is None:
            return float(priced["sim_seconds"].iloc[-1])
        row = target.first(priced)
        return math.inf if row is None else float(row["sim_seconds"])


def crossing(bandwidths: Sequence[float], method: Sequence[float], baseline: Sequence[float]) -> float | None:
    """The bandwidth below which the method takes less time than the baseline, between two of those given on a log
    scale; 0 where it never does, None where it always does."""
    gain = np.log(np.array(baseline)) - np.log(np.array(method))
    if not np.isfinite(gain).all():
        return 0.0 if not math.isfinite(method[0]) else None
    if (gain > 0).all():
        return None
    if gain[0] <= 0:
        return 0.0
    i = int(np.argmax(gain <= 0))
    weight = gain[i - 1] / (gain[i - 1] - gain[i])
    return float(np.exp(np.log(bandwidths[i - 1]) * (1 - weight) + np.log(bandwidths[i]) * weight))


def replay_markdown(
    runs: Mapping[str, Sequence[Priced]], given: float, target: Target | None, baseline: str, counted: str
) -> str:
    """A row per method on the network of bandwidth ``given``: time and bytes to the target, and below which bandwidth
    it is faster than the method ``baseline``. ``counted``: what is in the seconds, if not all, see ``clock_label``."""
    rows = []
    bandwidths = sorted(next(iter(runs.values()))[0].seconds)
    slow = mean_goals(runs[baseline], bandwidths, target)
    for name, each in runs.items():
        priced = [p.on(given) for p in each]
        goals = [p.to_goal(given, target) for p in each]
        reached = [row for p in priced if target and (row := target.first(p)) is not None]
        sent = human_bytes(sum(r["bytes_sent"] for r in reached) / len(reached)) if len(reached) == len(each) else "-"
        end = sum(float(p["sim_seconds"].iloc[-1]) for p in priced) / len(priced)
        rows.append([name, f"{end:.4g} s", _seconds(sum(goals) / len(goals)) if target else "-", sent])
        rows[-1].append(
            "-" if name == baseline else _below(crossing(bandwidths, mean_goals(each, bandwidths, target), slow))
        )
    goal = f"to {target}" if target else "to a target"
    only = f", {counted}" if counted else ""
    heads = ["method", f"all rounds{only}", f"{goal}{only}", "sent until then", f"faster than {baseline}"]
    return markdown(heads, rows) + "\n"


def mean_goals(runs: Sequence[Priced], bandwidths: Sequence[float], target: Target | None) -> list[float]:
    """The mean seconds over ``runs`` to the target, or to the end, at each bandwidth."""
    return [sum(p.to_goal(b, target) for p in runs) / len(runs) for b in bandwidths]


def _seconds(value: float) -> str:
    return f"{value:.4g} s" if math.isfinite(value) else "not reached"


def _below(bandwidth: float | None) -> str:
    if bandwidth is None:
        return "everywhere"
    if not bandwidth:
        return "nowhere"
    return f"below {bandwidth:.3g} Mbit/s" if bandwidth < 1000 else f"below {bandwidth / 1000:.3g} Gbit/s"


def draw_replay(
    runs: Mapping[str, Sequence[Priced]], target: Target | None, path: Path, counted: str = ""
) -> list[Path]:
    """The foremost metric that all runs have (accuracy, objective or loss) against time at four bandwidths, and the
    time to the goal against bandwidth. ``counted``: see ``replay_markdown``."""
    some = next(iter(runs.values()))[0]
    tables = [priced.metrics for each in runs.values() for priced in each]
    metric = next(m for m in foremost("replay") if all(m.name in table for table in tables))
    bandwidths = sorted(some.seconds)
    with figure(1, len(SHOWN) + 1, 2.5, 2.6) as (made, axes):
        for axis, bandwidth in zip(axes, SHOWN, strict=False):
            for k, each in enumerate(runs.values()):
                for priced in each:
                    frame = priced.on(bandwidth)
                    frame = frame[frame["sim_seconds"] > 0]
                    axis.plot(frame["sim_seconds"], frame[metric.name], **line_style(k), alpha=1 / len(each) ** 0.5)  # type: ignore[arg-type]
            log_scale(axis.xaxis)
            axis.set_title(f"{bandwidth:g} Mbit/s")
            axis.set_xlabel(f"virtual seconds\n{counted}" if counted else "virtual seconds")
            if metric.scale == "percent":
                percent_axis(axis, metric.label if axis is axes[0] else "")
            else:
                log_scale(axis.yaxis)
                axis.set_ylabel(metric.label if axis is axes[0] else "")
        last = axes[-1]
        for k, each in enumerate(runs.values()):
            last.plot(bandwidths, mean_goals(each, bandwidths, target), **line_style(k))  # type: ignore[arg-type]
        log_scale(last.xaxis)
        log_scale(last.yaxis)
        last.set_xlabel(f"Mbit/s\n{counted}" if counted else "Mbit/s")
        last.set_title(f"virtual seconds to {target}" if target else "virtual seconds to the end")
        handles = [axes[0].plot([], [], label=name, **line_style(k))[0] for k, name in enumerate(runs)]  # type: ignore[arg-type]
        made.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
        return save(made, path)
