"""The state of an interrupted run: tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from commexp.rundir import read_json, write_atomic, write_json

log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, completed: int, state: dict[str, Tensor]) -> None:
    """``state`` after ``completed`` rounds. The JSON, written last, names the tensors' hash: a torn pair is noticed."""
    content = save({name: t.detach().cpu().contiguous() for name, t in state.items()})
    write_atomic(folder / "state.safetensors", content)
    write_json(folder / "state.json", {"completed": completed, "sha256": hashlib.sha256(content).hexdigest()})


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """(completed rounds, state), or None where there is no sound checkpoint."""
    about, path = read_json(folder / "state.json"), folder / "state.safetensors"
    if not about or not path.is_file():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != about.get("sha256"):
        log.warning("%s is damaged and is not used", path)
        return None
    return int(about["completed"]), load(content)
