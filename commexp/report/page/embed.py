"""The curves as the page holds them: thinned to what a screen shows, as float32, a column that several share once."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import pandas as pd

from commexp.metrics import METRICS, foremost, metric
from commexp.report.bands import BANDS, factor
from commexp.report.comparison import Comparison
from commexp.report.thin import thinned

DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}  # matplotlib's and plotly's


def embedded(compared: Comparison) -> dict[str, Any]:
    """``methods``: name, look and ``runs``, each with ``columns``, a number in ``pool`` (base64 of float32) by
    name, and whether it is in its method's ``mean``: all are where none has completed. ``x``, ``y``: what may be
    chosen, as [column, label], and ``scales``, ``units`` of these columns. All curves of a method keep the same rows.
    ``bands``: as [word, label], each with ``factors``: the half of a band in standard deviations, by count of runs.
    """
    pool: dict[str, int] = {}
    methods: list[dict[str, Any]] = []
    seen: set[str] = set()
    for name, runs in compared.groups.items():
        frames = thinned([run.metrics for run in runs])
        none_completed = not any(run.status == "completed" for run in runs)
        kept = []
        for run, frame in zip(runs, frames, strict=True):
            known = [c for c in frame if frame[c].notna().any()]
            columns = {str(c): pool.setdefault(_packed(frame[c]), len(pool)) for c in known}
            seen.update(columns)
            mean = none_completed or run.status == "completed"
            kept.append({"name": run.name, "seed": str(run.config["seed"]), "mean": mean, "columns": columns})
        look = compared.looks[name]
        dash = DASHES[look.dash]
        shown = {"light": look.colour, "dark": look.dark, "dash": dash}
        methods.append({"name": name, "look": shown, "runs": [one for one in kept if one["columns"]]})
    across = [m for m in foremost("axis") if m.name in seen]
    rest = seen - {m.name for m in across}
    clock = f", {compared.on_clocks}" if compared.on_clocks else ""
    counts = range(2, 1 + max((len(runs) for runs in compared.groups.values()), default=0))
    up = [metric(column) for column in (*(c for c in METRICS if c in rest), *sorted(rest - METRICS.keys()))]
    return {
        "methods": methods,
        "pool": list(pool),
        "x": [(m.name, m.label + clock if m.name == "sim_seconds" else m.label) for m in across],
        "y": [(m.name, m.label) for m in up],
        "scales": {m.name: m.scale for m in (*across, *up)},
        "bands": [*BANDS.items()],
        "band": compared.band,
        "factors": {kind: {count: factor(kind, count) for count in counts} for kind in BANDS if kind != "range"},
        "units": {m.name: m.unit for m in (*across, *up) if m.unit},
        "first": next((m.name for m in (*foremost("final"), *up) if m.name in seen), None),
    }


def _packed(column: pd.Series) -> str:
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return b64encode(column.to_numpy(dtype=float).astype("<f4").tobytes()).decode()
