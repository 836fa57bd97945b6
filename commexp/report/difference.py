"""What a run and its repetition have in common: each metric, over all evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commexp.metrics import METRICS, metric, number, shown
from commexp.report.tables import markdown
from commexp.run_folder import Run

TOLERANCE = 1e-5  # relative: float32 sums in another order differ by so much after some rounds
EQUAL, CLOSE, OTHER = "equal", "within the last digits", "different"
COMPARED = ("commexp", "results", "git_commit", "python", "torch", "packages", "machine", "device", "threads")


@dataclass(frozen=True)
class Difference:
    """Of one column of metrics.csv: the last values before and now, the largest relative difference of all evaluations,
    and the first round in which there is one beyond the tolerance, or else any."""

    name: str
    before: Any
    now: Any
    largest: float
    verdict: str
    first_round: int | None


def differences(before: Run, now: Run, tolerance: float = TOLERANCE) -> list[Difference]:
    """Of every column that both have and that a repetition can have in common: not the time that it took here. Raises
    OSError or ValueError for tables that cannot be read."""
    one, other = ({int(row["round"]): row for row in run.rows("metrics")} for run in (before, now))
    if not one or not other:
        raise ValueError("metrics.csv has no rows; give a run that has evaluated")
    first, last = next(iter(one.values())), next(iter(other.values()))
    left_out = {"round", "wall_seconds"} | ({"sim_seconds"} if _measured(before) else set())
    order = dict.fromkeys([*(m.name for m in shown("table")), *METRICS, *first])
    columns = [name for name in order if name in first]
    return [_difference(name, one, other, tolerance) for name in columns if name in last and name not in left_out]


def _measured(run: Run) -> bool:
    """Whether its virtual clock counts seconds that were measured."""
    network = run.config.get("network")
    compute = network.get("compute") if isinstance(network, dict) else None
    return run.on_wall_clock or (
        isinstance(compute, dict) and "measured" in (compute.get("kind"), compute.get("coding"))
    )


def _difference(
    name: str, one: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]], tolerance: float
) -> Difference:
    gaps = {}
    for round_number in sorted(one.keys() | other.keys()):
        rows = one.get(round_number), other.get(round_number)
        gaps[round_number] = math.inf if None in rows else relative(rows[0][name], rows[1][name])  # type: ignore[index]
    largest = max(gaps.values())
    verdict = EQUAL if largest == 0 else CLOSE if largest <= tolerance else OTHER
    beyond = tolerance if verdict == OTHER else 0.0
    first = next((round_number for round_number, gap in gaps.items() if gap > beyond), None)
    return Difference(name, one[max(one)][name], other[max(other)][name], largest, verdict, first)


def relative(one: Any, other: Any) -> float:
    """The difference of two cells of a table, as a share of the larger; 0 for two that are the same, NaN included, and
    infinity where only one is a finite number."""
    try:
        a, b = number(one), number(other)
    except (TypeError, ValueError):
        return 0.0 if one == other else math.inf
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))


def difference_table(found: Sequence[Difference]) -> str:
    rows = []
    for each in found:
        show = metric(each.name).show
        gap = "-" if each.largest == 0 else f"{each.largest:.1e}"
        first = "-" if each.first_round is None else str(each.first_round)
        rows.append([metric(each.name).short, show(each.before), show(each.now), each.verdict, gap, first])
    return markdown(["metric", "packed", "repeated", "verdict", "by at most", "from round"], rows)


def other_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What made the two runs and is not the same, from meta.json: key, before and now."""
    one, other = ({**meta, **_packages(meta)} for meta in (before, now))
    keys = [key for key in (*COMPARED, *_packages(before), *_packages(now)) if key != "packages"]
    return [
        f"{key}: {one.get(key)} packed, {other.get(key)} here"
        for key in dict.fromkeys(keys)
        if one.get(key) is not None and one.get(key) != other.get(key)
    ]


def _packages(meta: Mapping[str, Any]) -> dict[str, Any]:
    packages = meta.get("packages")
    return {str(key): value for key, value in packages.items()} if isinstance(packages, dict) else {}
