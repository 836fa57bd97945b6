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
    """``state`` after ``completed`` rounds, beside the one before it until state.json, written last, names the new file
    and its hash: whenever the process dies, one of the two is whole."""
    content = save({name: t.detach().cpu().contiguous() for name, t in state.items()})
    path = folder / f"state-{completed}.safetensors"
    write_atomic(path, content)
    about = {"completed": completed, "file": path.name, "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / "state.json", about)
    for older in folder.glob("state-*.safetensors"):
        if older != path:
            older.unlink()


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """(completed rounds, state), or None where there is no sound checkpoint."""
    about = read_json(folder / "state.json")
    path = folder / str(about.get("file")) if about else folder
    if not about or not path.is_file():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != about.get("sha256"):
        log.warning("%s is damaged and is not used", path)
        return None
    return int(about["completed"]), load(content)
