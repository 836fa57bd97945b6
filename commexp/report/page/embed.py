"""The curves as the page holds them: thinned to what a screen shows, as float32, a column that several share once."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import pandas as pd

from commexp.report.comparison import Comparison
from commexp.report.tables import METRICS
from commexp.report.thin import thinned

X_AXES = {
    "round": "rounds",
    "step": "local steps",
    "epoch": "epochs",
    "samples": "samples, all workers",
    "samples_per_node": "sample gradients of a node",
    "calls": "messages to the server",
    "gossip_rounds": "mixings",
    "bytes_info": "bytes of information, all workers",
    "bytes_sent": "bytes sent, all workers",
    "bytes_wire": "bytes on the wire, all links",
    "sim_seconds": "time on the virtual clock",
    "wall_seconds": "time computing here",
}
FIRST_Y = ("test_accuracy", "test_rmse", "dist_to_opt", "objective", "train_loss")


def embedded(compared: Comparison) -> dict[str, Any]:
    """``methods``: name and ``runs``, each with ``columns``, a number in ``pool`` (base64 of little-endian float32) by
    name, and whether it is in its method's ``mean``: all are where none has completed. ``x``, ``y``: what may be
    chosen, as [column, label]. All curves of a method keep the same rows."""
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
        methods.append({"name": name, "runs": [one for one in kept if one["columns"]]})
    across = [(c, X_AXES[c]) for c in X_AXES if c in seen]
    metrics = sorted(seen - X_AXES.keys(), key=lambda c: (*METRICS, c).index(c))
    return {
        "methods": methods,
        "pool": list(pool),
        "x": across,
        "y": [(c, METRICS.get(c, c.replace("_", " "))) for c in metrics],
        "first": next((c for c in (*FIRST_Y, *metrics) if c in seen), None),
    }


def _packed(column: pd.Series) -> str:
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return b64encode(column.to_numpy(dtype=float).astype("<f4").tobytes()).decode()
