"""MLflow: where it is, its own environment variables say (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from commexp.integrations.tracking import RunLabels, flat, numbers
from commexp.run_folder import as_json, read_json, write_json

AT_ONCE = 100  # parameters in a call
LONGEST = 500  # characters of a parameter
ENDS = {"completed": "FINISHED", "interrupted": "KILLED"}  # else FAILED


class MlflowTracker:
    """A metric for each column, against round; the config as parameters and as the artifact config.yaml; the summary as
    metrics below ``summary.`` and as the artifact summary.json; pictures as artifacts below figures/; the labels as
    tags. mlflow.json in the run's folder says which of MLflow's runs it is."""

    def begin(self, config: Mapping[str, Any], folder: Path, labels: RunLabels) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        self.run = str(read_json(folder / "mlflow.json").get("run", ""))
        if self.run:
            self.client.update_run(self.run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "commexp")
        experiment = self.client.get_experiment_by_name(name)
        where = experiment.experiment_id if experiment else self.client.create_experiment(name)
        tags = {name: label for name, label in asdict(labels).items() if label}
        self.run = self.client.create_run(where, run_name=folder.name, tags=tags).info.run_id
        write_json(folder / "mlflow.json", {"run": self.run})
        params = [Param(key, str(value)[:LONGEST]) for key, value in flat(config).items()]
        for first in range(0, len(params), AT_ONCE):
            self.client.log_batch(self.run, params=params[first : first + AT_ONCE])
        self.client.log_text(self.run, yaml.safe_dump(dict(config), sort_keys=False), "config.yaml")

    def row(self, row: Mapping[str, float]) -> None:
        self._log(row, int(row["round"]))

    def end(self, summary: Mapping[str, Any], status: str, figures: Sequence[Path]) -> None:
        last = {f"summary.{key}": value for key, value in numbers(summary).items()}
        self._log(last, int(summary.get("round", 0)))
        if summary:
            self.client.log_text(self.run, as_json(summary), "summary.json")
        for path in figures:
            self.client.log_artifact(self.run, str(path), "figures")
        self.client.set_terminated(self.run, status=ENDS.get(status, "FAILED"))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run, metrics=[Metric(k, float(v), now, step) for k, v in values.items()])
