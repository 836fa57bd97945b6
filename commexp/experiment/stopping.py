"""Where a run ends before its full length: at an accuracy, a loss, a number of bytes or of seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commexp.config.schema import Stop
from commexp.metrics import human_bytes


def has_budget(stop: Stop) -> bool:
    """Whether bytes or seconds end the run: what is known after every round, evaluated or not."""
    return stop.bytes is not None or stop.seconds is not None


def reached(stop: Stop, row: Mapping[str, Any]) -> str:
    """The first criterion that ``row`` meets, with its value there, as in "stop.loss=1.5 (1.4873 at round 120)"; empty
    where it meets none. ``row``: of metrics.csv, or as much of it as is known."""
    loss = row.get("test_loss", row.get("train_loss"))
    accuracy, sent, seconds = row.get("test_accuracy"), row.get("bytes_sent"), row.get("sim_seconds")
    if stop.accuracy is not None and accuracy is not None and accuracy >= stop.accuracy:
        name, found = "accuracy", f"{accuracy:.5g}"
    elif stop.loss is not None and loss is not None and loss <= stop.loss:
        name, found = "loss", f"{loss:.5g}"
    elif stop.bytes is not None and sent is not None and sent >= stop.bytes:
        name, found = "bytes", human_bytes(sent)
    elif stop.seconds is not None and seconds is not None and seconds >= stop.seconds:
        name, found = "seconds", f"{seconds:.5g} s"
    else:
        return ""
    return f"stop.{name}={getattr(stop, name):.10g} ({found} at round {row['round']})"
