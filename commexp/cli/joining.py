"""Finished runs beside a plan: what each cost until it reached the target, on the plan's network."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import TYPE_CHECKING

from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.metrics import human_bytes
from commexp.report.comparison import Comparison
from commexp.report.reading import read_runs
from commexp.report.tables import markdown
from commexp.report.target import Target
from commexp.report.utilisation import bandwidth_text

if TYPE_CHECKING:
    from commexp.network import Network


def joined_runs(given: Namespace, network: Network) -> tuple[list[str], str]:
    """A table of the runs by method, means over seeds, and what it lacks; the method that comes first, in a sentence.
    Raises UserError where no run can be priced on the network, or there is no target."""
    runs, left = read_runs(given.runs)
    target = Target.of({"target_accuracy": given.target, "target_loss": given.target_loss})
    groups = Comparison(runs, left, target).groups
    why = [f"{run.folder}: {run.problem}" for run in runs if run.problem] + [f"{one.folder}: {one.why}" for one in left]
    target = target or next((Target.of(run.config) for each in groups.values() for run in each), None)
    if groups and target is None:
        raise UserError("--from: these runs have no target; give --target 0.9 or --target-loss 1.5")
    rows, costs = [], {}
    for name, each in groups.items():
        reached: list[tuple[float, float]] = []
        for run in each:
            try:
                seconds = Replay(run).seconds(network)
            except UserError as error:
                why.append(str(error).removeprefix("RUN="))
                continue
            assert target is not None
            row = target.first(run.metrics.assign(sim_seconds=seconds))
            sent = math.inf if row is None else float(row["bytes_sent"]) / run.config["workers"]
            reached.append((math.inf if row is None else float(row["sim_seconds"]), sent))
        if not reached:
            continue
        hours, sent = (sum(column) / len(reached) for column in zip(*reached, strict=True))
        if math.isfinite(hours):
            costs[name] = hours / 3600, sent, len(reached)
        missed = f"{sum(math.isinf(h) for h, _ in reached)} of {len(reached)} not reached"
        rows.append([name, *([f"{hours / 3600:.3g}", human_bytes(sent)] if name in costs else [missed, "-"])])
    if not rows:
        raise UserError(f"--from={why[0] if why else given.runs[0]}; give folders of finished runs")
    table = markdown(["run", f"hours to {target}", "sent by a worker"], rows)
    blocks = [table, *(["\n".join(f"Left out: {each}" for each in why)] if why else [])]
    where = f"at {bandwidth_text(network.bandwidth)}"
    if not costs:
        return blocks, f"none of the runs, for none reaches {target}."
    best = min(costs, key=lambda name: costs[name][0])
    hours, sent, count = costs[best]
    of = f"a mean of {count} runs" if count > 1 else "one run"
    advice = f"{best}, the first to reach {target} {where}, in {hours:.3g} h with {human_bytes(sent)} from a worker"
    return blocks, f"{advice} ({of})."
