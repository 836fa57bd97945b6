"""TensorBoard: event files in the run's folder. ``tensorboard --logdir outputs/runs`` shows every run by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from commexp.integrations.tracking import RunLabels, flat, numbers

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorboardTracker:
    """A scalar for each column, against round; config, labels and summary as text; config, labels and the summary's
    numbers under HPARAMS, which sorts by them; pictures under IMAGES. A resumed run goes on in the same folder, and
    what the lost rounds had left there is purged by its first row."""

    def begin(self, config: Mapping[str, Any], folder: Path, labels: RunLabels) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.config, self.folder, self.kind, self.labels = config, folder, SummaryWriter, asdict(labels)
        self.resumed = any(folder.glob("events.out.tfevents.*"))
        self.writer: SummaryWriter | None = None

    def row(self, row: Mapping[str, float]) -> None:
        step = int(row["round"])
        if self.writer is None:
            self.writer = self.kind(str(self.folder), purge_step=step if self.resumed else None)
            if not self.resumed:
                self._text("config", self.config)
                self._text("labels", self.labels)
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, summary: Mapping[str, Any], status: str, figures: Sequence[Path]) -> None:
        if self.writer is None:
            return
        self._text("summary", {"status": status, **summary})
        if status == "completed":
            told = {**flat(self.config), **{f"label/{name}": label for name, label in self.labels.items()}}
            chosen = {k: v for k, v in told.items() if isinstance(v, (bool, str, float, int))}
            last = {f"summary/{k}": v for k, v in numbers(summary).items()}
            self.writer.add_hparams(chosen, last, run_name=".")
        for path in figures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self.writer.add_image(f"figures/{path.stem}", pixels, int(summary["round"]), dataformats="HWC")
        self.writer.close()

    def _text(self, name: str, content: Mapping[str, Any]) -> None:
        assert self.writer is not None
        lines = yaml.safe_dump(dict(content), sort_keys=False).splitlines()
        self.writer.add_text(name, "\n".join(f"    {line}" for line in lines))
