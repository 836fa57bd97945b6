"""Folders of runs of made-up numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from commexp.run_folder import Run


def make(folder: Path, seed: int, k: float, status: str = "completed", rows: int = 30, **meta: object) -> Run:
    """A run's folder as a run leaves it, of made-up numbers. ``meta``: what meta.json says otherwise."""
    run = Run(folder)
    run.make_folder()
    config = {
        "seed": seed, "workers": 4, "target_accuracy": 0.9,
        "dataset": {"_target_": "commexp.problems.datasets.Digits"},
        "model": {"_target_": "commexp.problems.models.Linear"},
        "topology": {"_target_": "commexp.topologies.Ring"},
        "compress": {"_target_": "commexp.compressors.TopK", "k": k},
        "algo": {"_target_": "commexp.algorithms.SGD", "lr": 0.1},
    }  # fmt: skip
    run.write_config(config)
    noise = np.random.default_rng(seed).random(rows) / 50
    metrics = [
        {
            "round": 10 * t, "step": 10 * t, "sim_seconds": 0.1 * t, "wall_seconds": 0.3 * t,
            "bytes_sent": int(1e6 * k * t), "bytes_wire": int(2e6 * k * t), "train_loss": math.exp(-t / 5) + noise[t],
            "test_accuracy": 1 - 0.9 * math.exp(-t / 5) - noise[t] - k / 2, "consensus": noise[t] / 7,
        }
        for t in range(rows)
    ]  # fmt: skip
    run.write_rows("metrics", metrics)
    phases = {f"{phase}_seconds": 1e-3 for phase in ("compute", "encode", "wait", "transfer", "decode")}
    run.write_rows("traffic", [{"round": t, "exchange": "gossip", "direction": "peers", **phases} for t in range(1, 4)])
    links = [{"worker": n, "neighbour": (n + d) % 4, "weight": 1 / 3} for n in range(4) for d in (1, 3)]
    run.write_rows("topology", links)
    meta = {"algo": "gossip", "compress": "topk", "seed": seed, "workers": 4, "command": "commexp a=b", **meta}
    run.set_meta(name=f"gossip-topk-{folder.name}", status=status, **meta)
    return run
