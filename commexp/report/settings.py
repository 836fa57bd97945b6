"""Which setting of a method's hyper-parameters reaches the target soonest, or why that cannot be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from commexp.report.spread import Spread, human_seconds
from commexp.report.tables import NOT_IN_LABELS, flatten, telling, words_of
from commexp.report.target import Target
from commexp.run_folder import Run

LENGTHS = ("rounds", "steps", "eval_every")  # which may follow from others, such as algo.tau
MOST = 5  # settings that a sentence lists of each kind


@dataclass(frozen=True)
class Family:
    """Methods of the same algorithm, codec, problem and network. ``keys``: those of the config in which they differ;
    ``settings``: by the name of the method, the values of these."""

    name: str
    keys: Sequence[str]
    settings: Mapping[str, str]


def families(groups: Mapping[str, Sequence[Run]]) -> list[Family]:
    """The methods that differ in nothing but hyper-parameters: values below ``algo`` and ``compress`` other than
    classes, the batch size, and besides these the length of the run; only those of which there are several."""
    found: dict[tuple[str, ...], dict[str, dict[str, object]]] = {}
    names: dict[tuple[str, ...], str] = {}
    for method, runs in groups.items():
        flat = flatten({k: v for k, v in runs[0].config.items() if k not in NOT_IN_LABELS})
        free = [k for k in flat if k.startswith(("algo.", "compress.")) and not k.endswith("._target_")]
        free += [k for k in ("batch_size", *LENGTHS) if k in flat]
        words = words_of(runs[0])
        alike = (*words, str(runs[0].on_wall_clock), *(f"{k}={v}" for k, v in sorted(flat.items()) if k not in free))
        found.setdefault(alike, {})[method] = {k: flat[k] for k in free}
        names[alike] = " ".join(word for word in words if word != "none")
    made = []
    for alike, configs in found.items():
        k = ["compress.k"] if len({str(config.get("compress.k")) for config in configs.values()}) > 1 else []
        keys = [*k, *sorted(telling(list(configs.values())))]
        if {*keys} - {*LENGTHS}:
            values = {name: " ".join(_say(key, config, keys) for key in keys) for name, config in configs.items()}
            made.append(Family(names[alike], keys, values))
    return made


def _say(key: str, config: Mapping[str, object], keys: Sequence[str]) -> str:
    value = config.get(key)
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    return text if len(keys) == 1 else f"{key}={text}"


def on_own_network(groups: Mapping[str, Sequence[Run]], target: Target | None) -> list[str]:
    """A sentence for each family, on the network that its runs have had; ``target``: that of their config if None."""
    told = []
    for family in families(groups):
        goal = target or Target.of(groups[next(iter(family.settings))][0].config)
        if goal is None:
            told.append(without_target(family))
            continue
        times = {name: _times(groups[name], goal) for name in family.settings}
        told.append(best_setting(family, times, "the network of the runs", goal))
    return told


def without_target(family: Family) -> str:
    keys = " and ".join(family.keys)
    return (
        f"{family.name}: the best {keys} is that which reaches a target first; give --target 0.9 or --target-loss 1.5"
    )


def _times(runs: Sequence[Run], target: Target) -> list[float]:
    """Of the completed runs that have its metric."""
    rows = [target.first(run.metrics) for run in runs if run.status == "completed" and target.column(run.metrics)]
    return [math.inf if row is None else float(row["sim_seconds"]) for row in rows]


def best_setting(family: Family, times: Mapping[str, Sequence[float]], network: str, target: Target) -> str:
    """A sentence about one network. ``times``: of each method's completed runs, the seconds to the target; infinity
    where it is not reached. Settings that do so in each of their runs are compared by their means; where the first two
    differ by no more than the errors, or these are not known, the sentence says so."""
    each = {setting: Spread.of(times[name]) for name, setting in family.settings.items() if times.get(name)}
    ranked = sorted((s for s in each if math.isfinite(each[s].mean)), key=lambda s: each[s].mean)
    missed = [text for name, setting in family.settings.items() if (text := _missed(setting, times.get(name, ())))]
    what = f"{family.keys[0] if len(family.keys) == 1 else 'setting'} for {network}"
    told = {s: f"{s} ({human_seconds(each[s].mean, each[s].std)})" for s in ranked}
    alike = [s for s in ranked[1:] if each[s].differs(each[ranked[0]]) is False]
    rest = [told[s] for s in ranked[1:] if s not in alike]
    if not any(math.isfinite(time) for name in family.settings for time in times.get(name, ())):
        return f"{family.name}: no run reaches {target}, whatever {' and '.join(family.keys)}."
    if not ranked:
        parts = [f"no {what} reaches {target} in each of its runs"]
    elif alike:
        names = f"{told[ranked[0]]} and {_listed([told[s] for s in alike])}"
        parts = [f"the best {what} cannot be told: to {target}, {names} differ by no more than the errors"]
    else:
        first = each[ranked[0]]
        took = f"{human_seconds(first.mean, first.std)} ({first.count} run{'s' if first.count > 1 else ''})"
        parts = [f"the best {what} is {ranked[0]}, with {target} after {took}"]
    if rest:
        parts[0] += f", before {_listed(rest)}"
    if len(ranked) > 1 and not alike and each[ranked[1]].differs(each[ranked[0]]) is None:
        parts.append("the spread over seeds is not known, for which each setting must have several runs")
    return f"{family.name}: {'; '.join([*parts, *([_listed(missed)] if missed else [])])}."


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + more


def _missed(setting: str, times: Sequence[float]) -> str:
    """Of a setting that does not reach the target in each of its runs."""
    reached = sum(map(math.isfinite, times))
    if not times:
        return f"{setting} has no completed run"
    if not reached:
        return f"{setting} does not reach it"
    return "" if reached == len(times) else f"{setting} reaches it in {reached} of {len(times)} runs"
