"""The state of an interrupted run: tensors in safetensors, the rest in JSON; the last two are kept.

Every process writes its own workers' rows, the first one also what is equal everywhere. When all have written, a
small file ``state-<rounds>.json`` names the parts, their hashes and whose workers they hold: whenever a process dies,
the checkpoint before is whole. Parts may be read by processes that host other workers than those that wrote them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from commexp.comm import Links
from commexp.rundir import read_json, write_atomic, write_json
from commexp.state import has_workers

KEPT = 2


def save_checkpoint(
    folder: Path, completed: int, state: dict[str, Tensor], worker_ids: Sequence[int], links: Links
) -> None:
    """``state`` after ``completed`` rounds. All processes call this together."""
    own = {n: t for n, t in state.items() if has_workers(n) or links.rank == 0}
    content = save({n: t.detach().cpu().contiguous() for n, t in own.items()})
    digest = hashlib.sha256(content).hexdigest()
    name = f"state-{completed}-{links.rank}-{digest[:8]}.safetensors"
    write_atomic(folder / name, content)
    told = links.tell(f"{name} {digest} {worker_ids[0]} {worker_ids[-1] + 1}")
    if links.rank:
        return
    parts = [dict(zip(("file", "sha256", "first", "end"), line.split(), strict=True)) for line in told]
    parts = [{**p, "first": int(p["first"]), "end": int(p["end"])} for p in parts]  # type: ignore[dict-item]
    write_json(folder / f"state-{completed}.json", {"completed": completed, "parts": parts})
    _prune(folder)


def load_checkpoint(folder: Path, worker_ids: Sequence[int], links: Links) -> tuple[int, dict[str, Tensor]] | None:
    """(completed rounds, state of these workers) of the newest sound checkpoint, or None; a damaged one is reported.
    All processes call this together; the first one chooses."""
    found = (
        "" if links.rank else next((path.name for path, about in _indices(folder) if _sound(folder, path, about)), "")
    )
    name = links.tell(found)[0]
    if not name:
        return None
    about = read_json(folder / name)
    return int(about["completed"]), _rows(folder, about, worker_ids)


def _rows(folder: Path, about: dict[str, Any], worker_ids: Sequence[int]) -> dict[str, Tensor]:
    """What is equal everywhere, and the rows of these workers, which are neighbours."""
    state: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {}
    for part in sorted(about["parts"], key=lambda p: int(p["first"])):
        low, high = max(part["first"], worker_ids[0]), min(part["end"], worker_ids[-1] + 1)
        if part["first"] and low >= high:
            continue
        for name, tensor in load((folder / part["file"]).read_bytes()).items():
            if not has_workers(name):
                state[name] = tensor
            elif low < high:
                rows.setdefault(name, []).append(tensor[low - part["first"] : high - part["first"]])
    return {**state, **{name: torch.cat(each) for name, each in rows.items()}}


def _indices(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The checkpoints, newest first."""
    for path in sorted(folder.glob("state-*.json"), key=lambda p: int(p.stem.split("-")[1]), reverse=True):
        yield path, read_json(path)


def _sound(folder: Path, path: Path, about: dict[str, Any]) -> bool:
    for part in about.get("parts", [{"file": path.name}]):
        file = folder / str(part["file"])
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != part.get("sha256"):
            print(f"commexp: note: checkpoint {file.name} is damaged and is not used", file=sys.stderr, flush=True)
            return False
    return True


def _prune(folder: Path) -> None:
    """Leaves the last checkpoints and what belongs to them."""
    kept = list(_indices(folder))[:KEPT]
    names = {path.name for path, _ in kept} | {part["file"] for _, about in kept for part in about.get("parts", [])}
    for path in folder.glob("state-*"):
        if path.name not in names:
            path.unlink()
