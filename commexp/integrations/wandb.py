"""Weights & Biases: project and mode are what its own environment variables say (WANDB_PROJECT, WANDB_MODE)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commexp.integrations.tracking import RunLabels
from commexp.run_folder import read_json, write_json


class WandbTracker:
    """A metric for each column, against round; config, summary and pictures; the runs of a sweep are a group, the names
    of the components are tags. wandb.json in the run's folder says which run it is; wandb's own files lie below
    ``wandb/`` there."""

    def begin(self, config: Mapping[str, Any], folder: Path, labels: RunLabels) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", "commexp")
        self.run = wandb.init(
            project=project,
            name=folder.name,
            group=labels.sweep or None,
            tags=[labels.algo, labels.compress, labels.dataset],
            id=read_json(folder / "wandb.json").get("run"),
            resume="allow",
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(console="off"),
        )
        write_json(folder / "wandb.json", {"run": self.run.id})

    def row(self, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=int(row["round"]))

    def end(self, summary: Mapping[str, Any], status: str, figures: Sequence[Path]) -> None:
        from wandb import Image

        self.run.summary.update({"status": status, **summary})
        if figures:
            self.run.log({f"figures/{path.stem}": Image(str(path)) for path in figures}, step=int(summary["round"]))
        self.run.finish(exit_code=int(status != "completed"))
