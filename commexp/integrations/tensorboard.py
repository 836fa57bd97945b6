"""TensorBoard: event files in the run's folder. ``tensorboard --logdir outputs/runs`` shows every run by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from commexp.integrations.tracking import flat, numbers

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorboardTracker:
    """A scalar for each column, against round; the config as text; config and summary under HPARAMS. A resumed run
    goes on in the same folder, and what the lost rounds had left there is purged by its first row."""

    def begin(self, config: Mapping[str, Any], folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.config, self.folder, self.kind = config, folder, SummaryWriter
        self.resumed = any(folder.glob("events.out.tfevents.*"))
        self.writer: SummaryWriter | None = None

    def row(self, row: Mapping[str, float]) -> None:
        step = int(row["round"])
        if self.writer is None:
            self.writer = self.kind(str(self.folder), purge_step=step if self.resumed else None)
            if not self.resumed:
                self._text("config", self.config)
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, summary: Mapping[str, Any], status: str) -> None:
        if self.writer is None:
            return
        self._text("summary", {"status": status, **summary})
        if status == "completed":
            chosen = {k: v for k, v in flat(self.config).items() if isinstance(v, (bool, str, float, int))}
            last = {f"summary/{k}": v for k, v in numbers(summary).items()}
            self.writer.add_hparams(chosen, last, run_name=".")
        self.writer.close()

    def _text(self, name: str, content: Mapping[str, Any]) -> None:
        assert self.writer is not None
        lines = yaml.safe_dump(dict(content), sort_keys=False).splitlines()
        self.writer.add_text(name, "\n".join(f"    {line}" for line in lines))
