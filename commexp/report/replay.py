"""What several networks make of the same runs: a metric against time, time to the target, where compression pays."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from commexp.metrics import METRICS, Metric, foremost, human_bytes
from commexp.report.bands import band, told
from commexp.report.budgets import EqualCost, statuses
from commexp.report.curves import draw_lines, dress, spans_decades
from commexp.report.looks import Look
from commexp.report.settings import Family, best_setting, without_target
from commexp.report.spread import Spread, human_bandwidth, human_seconds
from commexp.report.style import columns_that_fit, figure, log_scale, note, save
from commexp.report.tables import markdown
from commexp.report.target import Target
from commexp.report.terminal import MarkdownTable

SHOWN = (10.0, 100.0, 1000.0, 10000.0)  # Mbit/s


@dataclass
class Priced:
    """A run's metrics, and its seconds at each evaluation for each bandwidth in Mbit/s."""

    metrics: pd.DataFrame
    seconds: Mapping[float, Sequence[float]]
    status: str = "completed"

    def on(self, bandwidth: float) -> pd.DataFrame:
        return self.metrics.assign(sim_seconds=self.seconds[bandwidth])

    def to_goal(self, bandwidth: float, target: Target | None) -> float:
        """Seconds to the target; to the end where there is none; infinity where it is not reached."""
        priced = self.on(bandwidth)
        if target is None or target.column(priced) is None:
            return float(priced["sim_seconds"].iloc[-1])
        row = target.first(priced)
        return math.inf if row is None else float(row["sim_seconds"])


Runs = Mapping[str, Sequence[Priced]]


def crossing(bandwidths: Sequence[float], method: Sequence[float], baseline: Sequence[float]) -> float | None:
    """The bandwidth below which the method takes less time than the baseline, between two of those given on a log
    scale; 0 where it never does, None where it always does."""
    with np.errstate(invalid="ignore"):  # inf - inf where neither reaches the target
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


def replay_table(runs: Runs, given: float, target: Target | None, baseline: str, only: str = "") -> MarkdownTable:
    """A row per method on the network of bandwidth ``given``: time and bytes to the target, and below which bandwidth
    it is faster than the method ``baseline``. ``only``: after what the
    seconds are called, where they leave out computing, see ``clock_label``."""
    rows = []
    bandwidths = sorted(next(iter(runs.values()))[0].seconds)
    slow = mean_goals(runs[baseline], bandwidths, target)
    for name, each in runs.items():
        priced = [p.on(given) for p in each]
        reached = [row for p in priced if target and (row := target.first(p)) is not None]
        goals, sent = (Spread.of(row[cost] for row in reached) for cost in ("sim_seconds", "bytes_sent"))
        end = Spread.of(float(p["sim_seconds"].iloc[-1]) for p in priced)
        count = f" ({len(reached)} of {len(each)})" if len(reached) < len(each) else ""
        rows.append([name, _seconds(end), _seconds(goals) + count if reached else "-"])
        if target and not reached and any(map(target.column, priced)):
            rows[-1][-1] = "not reached"
        rows[-1].append(human_bytes(sent.mean, sent.std) + count if reached else "-")
        rows[-1].append(
            "-" if name == baseline else _below(crossing(bandwidths, mean_goals(each, bandwidths, target), slow))
        )
    goal = f"to {target}" if target else "to a target"
    heads = ["method", f"all rounds{only}", f"{goal}{only}", "sent until then", f"faster than {baseline}"]
    return markdown(heads, rows)


def mean_goals(runs: Sequence[Priced], bandwidths: Sequence[float], target: Target | None) -> list[float]:
    """The mean seconds over ``runs`` to the target, or to the end, at each bandwidth."""
    return [sum(p.to_goal(b, target) for p in runs) / len(runs) for b in bandwidths]


def _seconds(spread: Spread) -> str:
    return f"{spread.mean:.4g} s" + (f" ± {spread.std:.2g}" if spread.std > 0 else "")


def _below(bandwidth: float | None) -> str:
    if bandwidth is None:
        return "everywhere"
    return f"below {human_bandwidth(bandwidth)}" if bandwidth else "nowhere"


def equal_cost(runs: Runs, given: float, at: Mapping[str, Sequence[float]], only: str = "") -> EqualCost:
    """The completed runs at equal cost on the network of bandwidth ``given``. ``only``: see ``replay_table``."""
    clock = f"{METRICS['sim_seconds'].label}{only}" if only else ""
    done = {name: [p.on(given) for p in each if p.status == "completed"] for name, each in runs.items()}
    return EqualCost(done, {name: statuses([p.status for p in each]) for name, each in runs.items()}, at, clock)


def times_to(runs: Runs, bandwidth: float, target: Target) -> dict[str, list[float]]:
    """Of each method's completed runs the seconds to the target, infinity where it is not reached; those whose tables
    do not have its metric are left out."""
    told = {
        name: [p for p in each if p.status == "completed" and target.column(p.metrics)] for name, each in runs.items()
    }
    return {name: [p.to_goal(bandwidth, target) for p in each] for name, each in told.items()}


def by_bandwidth(runs: Runs, target: Target | None, equal: EqualCost) -> pd.DataFrame:
    """replay.csv: a row per method and bandwidth: seconds of all rounds and to the target, bytes sent in all and the
    final metric; means and standard deviations over completed runs, of the time to the target over those that reach it:
    ``reached_target``, NaN where none has its metric. ``equal``: of the same methods."""
    sent, final = equal.final("bytes_sent")
    rows = []
    for bandwidth in sorted(next(iter(runs.values()))[0].seconds):
        to_target = times_to(runs, bandwidth, target) if target else {}
        for method, each in runs.items():
            done = [p for p in each if p.status == "completed"]
            total = Spread.of(p.seconds[bandwidth][-1] for p in done)
            times = to_target.get(method, [])
            reached = [t for t in times if math.isfinite(t)]
            goal = Spread.of(reached)
            row = {"method": method, "mbit_per_second": bandwidth, "status": equal.statuses[method], "count": len(done)}
            row |= {"seconds": total.mean, "seconds_std": total.std}
            row |= {"seconds_to_target": goal.mean, "seconds_to_target_std": goal.std}
            row |= {"reached_target": len(reached) if times else math.nan}
            row |= {"bytes_sent": sent[method].mean, "bytes_sent_std": sent[method].std}
            row |= {"metric": equal.metric.name if equal.metric else "", "mean": final[method].mean}
            row |= {"std": final[method].std}
            rows.append(row)
    return pd.DataFrame(rows)


def at_bandwidths(
    table: pd.DataFrame, given: float, target: Target | None, final: Metric | None, only: str = ""
) -> list[str]:
    """What each method gives and costs, side by side: the final metric, bytes, and the time at several bandwidths, of
    all rounds and to the target. ``only``: see ``replay_table``. ``table``: that of ``by_bandwidth``, and its
    metric."""
    bandwidths = sorted({*SHOWN, given})

    def cells(values: str) -> list[list[str]]:
        rows = []
        for method, group in table.groupby("method", sort=False):
            one = group.iloc[0]
            row = [str(method), one["status"]]
            row += [final.plus_minus(one["mean"], one["std"]) if one["count"] else "-"] if final else []
            row.append(human_bytes(one["bytes_sent"], one["bytes_sent_std"]) if one["count"] else "-")
            for _, at in group[group["mbit_per_second"].isin(bandwidths)].iterrows():
                text = human_seconds(at[values], at[f"{values}_std"])
                n, of = at["reached_target"], at["count"]
                if values == "seconds_to_target" and not math.isnan(n):
                    text = "not reached" if not n else text if n == of else f"{text} ({n:.0f} of {of})"
                row.append(text)
            rows.append(row)
        return rows

    heads = ["method", "runs", *([f"final {final.label}"] if final else []), "sent in all"]
    heads += [human_bandwidth(b) for b in bandwidths]
    minor = ["runs", "sent in all", *heads[2:3]] if final else ["runs", "sent in all"]
    blocks = [f"Time of all rounds on the virtual clock{only}, by bandwidth:", markdown(heads, cells("seconds"), minor)]
    if target:
        reached = markdown(heads, cells("seconds_to_target"), minor)
        blocks += [f"Time to {target} on the virtual clock{only}, by bandwidth:", reached]
    return blocks


def best_settings(alike: Sequence[Family], runs: Runs, given: float, target: Target | None) -> list[str]:
    """A list of sentences: of each family, which setting reaches the target soonest at each of several bandwidths."""
    told = []
    for family in alike:
        if target is None:
            told.append(without_target(family))
            continue
        for bandwidth in sorted({*SHOWN, given}):
            told.append(best_setting(family, times_to(runs, bandwidth, target), human_bandwidth(bandwidth), target))
    return ["Soonest to the target, on the virtual clock:", "\n".join(f"* {text}" for text in told)] if told else []


def draw_replay(
    runs: Runs,
    target: Target | None,
    path: Path,
    looks: Mapping[str, Look],
    clock: str = "virtual seconds",
    kind: str = "std",
) -> list[Path]:
    """The foremost metric that all runs have (accuracy, objective or loss) against time at four bandwidths, and the
    time to the goal against bandwidth: means over each method's runs, with the band ``kind``, see bands.py. The legend
    says of how many runs the last panel is, where some do not reach the target. ``clock``: what the seconds are
    called."""
    some = next(iter(runs.values()))[0]
    tables = [priced.metrics for each in runs.values() for priced in each]
    shown = next(m for m in foremost("replay") if all(m.name in table for table in tables))
    bandwidths = sorted(some.seconds)
    up = spans_decades({"": tables}, shown.name)
    with figure(1, len(SHOWN) + 1, 2.5, 2.7) as (made, axes):
        for axis, bandwidth in zip(axes, SHOWN, strict=False):
            on = {name: [priced.on(bandwidth) for priced in each] for name, each in runs.items()}
            if axis is not axes[0]:
                axis.sharey(axes[0])
            draw_lines(axis, on, looks, "sim_seconds", shown.name, kind, True, up)
        for axis, bandwidth in zip(axes, SHOWN, strict=False):
            dress(axis, "sim_seconds", shown.name, True, axis is axes[0], True, up)
            axis.tick_params(labelleft=axis is axes[0])
            axis.set_title(human_bandwidth(bandwidth))
            axis.set_xlabel(clock.replace(", ", "\n"))
        names = {
            name: _draw_goals(axes[-1], name, each, bandwidths, target, looks[name], kind)
            for name, each in runs.items()
        }
        log_scale(axes[-1].xaxis)
        log_scale(axes[-1].yaxis)
        axes[-1].set_xlabel("Mbit/s")
        axes[-1].set_title(textwrap.fill(f"{clock} to {target.short if target else 'the end'}", 32))
        handles = [axes[0].plot([], [], label=said, **looks[name].line)[0] for name, said in names.items()]
        made.legend(handles=handles, loc="outside upper center", ncols=columns_that_fit(names.values(), 12.0, most=6))
        note(made, told(kind, map(len, runs.values())))
        return save(made, path)


def _draw_goals(
    axis: Axes,
    name: str,
    runs: Sequence[Priced],
    bandwidths: Sequence[float],
    target: Target | None,
    look: Look,
    kind: str,
) -> str:
    """Mean and band of the time to the goal over the runs that reach it; returns what the legend calls the method."""
    times = np.array([[run.to_goal(b, target) for b in bandwidths] for run in runs])
    times = times[np.isfinite(times).all(axis=1)]
    if len(times):
        axis.plot(bandwidths, times.mean(axis=0), **look.line)
        if len(times) > 1:
            low, high = band(times.T, kind)
            low = np.maximum(low, 0.1 * times.min(axis=0))  # which a logarithmic axis has room for
            axis.fill_between(bandwidths, low, high, color=look.colour, alpha=0.15, linewidth=0)
    if len(times) == len(runs):
        return name
    return f"{name} ({len(times)} of {len(runs)} reach it)" if len(times) else f"{name} (target not reached)"
