"""The state of an interrupted run: tensors in safetensors, the rest in JSON; the last two checkpoints are kept.

Every process writes the rows of its own workers, the first one also what is equal everywhere. When all have written,
the first writes ``state-<rounds>.json``. This index names the parts, their lengths, hashes and workers, the run that
they belong to, and how much of each table belongs to them; it has a checksum of its own. So the checkpoint before is
whole whenever a process dies. Parts may be read by processes that host other workers than those that wrote them.

Where the first process is a server that waits for nobody, each other process keeps what its workers need by itself, in
``worker-<number>.json`` and its parts. Of methods with rounds such a part has a version, one more than the last round
in which the messages of the process have counted, and the index of the server names the versions that belong to it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from commexp.comm import Links
from commexp.files import read_bytes, read_json
from commexp.run_folder import write_atomic, write_json
from commexp.state import has_workers

KEPT = 2
INDEX = re.compile(r"state-(0|[1-9]\d{0,11})\.json")
PART = re.compile(r"(state-\d+-\d+|worker-\d+)-[0-9a-f]{8}\.safetensors")
DAMAGED = "is damaged"
#: what state raises that does not fit where it is loaded
MISFITS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError, OverflowError)

State = dict[str, Tensor]


class UnusableError(Exception):
    """``file`` cannot be used; the text says why: "is damaged"."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file} {why}")


def save_checkpoint(
    folder: Path,
    completed: int,
    state: State,
    worker_ids: Sequence[int],
    links: Links,
    run: str = "",
    tables: Mapping[str, Any] | None = None,
) -> None:
    """``state`` after ``completed`` rounds; ``worker_ids``: whose rows it holds, none where another process writes
    them. ``run``: whose it is, see Plan.identity. ``tables``: what of each table
    belongs to it; the first process's counts. All processes call this together. The versions of what other processes
    keep by themselves are ``links.versions``."""
    folder.mkdir(exist_ok=True)
    written = ""
    if worker_ids:
        own = {n: t for n, t in state.items() if has_workers(n) or links.rank == 0}
        part = _write_part(folder, f"state-{completed}-{links.rank}", own)
        written = json.dumps({**part, "first": worker_ids[0], "end": worker_ids[-1] + 1})
    told = links.tell(written)
    if links.rank == 0:
        parts = [json.loads(text) for text in told if text]
        index = {"run": run, "completed": completed, "parts": parts, "tables": dict(tables or {})}
        if links.versions:
            index["versions"] = {str(rank): version for rank, version in links.versions.items()}
        _write_index(folder / f"state-{completed}.json", index)
        _prune(folder, completed)


def load_checkpoint(
    folder: Path,
    worker_ids: Sequence[int],
    links: Links,
    run: str = "",
    accept: Callable[[dict[str, Any], State], None] = lambda about, state: None,
) -> tuple[int, State] | None:
    """(completed rounds, state of these workers) of the newest checkpoint that is sound, belongs to ``run`` and is
    accepted by all processes, or None; those that are passed over are reported. ``accept``: takes what the index says
    and the state, and raises UnusableError or one of MISFITS. One to which a version of what another process keeps is
    missing is taken only where it is the last. All processes call this together."""
    listed = " ".join(_indices(folder)) if links.rank == 0 else ""
    names = links.tell(listed)[0].split()
    for name in names:
        why, completed, state = "", 0, State()
        try:
            about = _read_state(folder / name, run)
            if name != names[-1]:
                _check_workers(folder, name, about, run)
            completed, state = about["completed"], _rows(folder, about, worker_ids)
            accept(about, state)
        except UnusableError as error:
            why = str(error)
        except MISFITS as error:
            why = f"{name} does not fit the run ({' '.join(str(error).split()) or type(error).__name__})"
        whys = [text for text in links.tell(why) if text]
        if not whys:
            return completed, state
        if links.rank == 0:
            _note(whys[0])
            with suppress(OSError):
                (folder / name).unlink()  # or it would count as one of the last
    if names and links.rank == 0:
        print(f"commexp: note: {folder.parent.name}: begins anew, no checkpoint is left", file=sys.stderr, flush=True)
    return None


def save_worker(folder: Path, worker: int, state: State, run: str, version: int = 0) -> None:
    """Saves what a process that no other one waits for keeps of its workers; ``worker``: its number. The last two
    versions are kept."""
    folder.mkdir(exist_ok=True)
    index = folder / f"worker-{worker}.json"
    before = []
    with suppress(UnusableError):
        before = [part for part in _worker_parts(index, worker, run) if part["version"] != version]
    part = {**_write_part(folder, f"worker-{worker}", state), "version": version}
    parts = [part, *before][:KEPT]
    _write_index(index, {"run": run, "worker": worker, "parts": parts})
    for path in folder.glob(f"worker-{worker}-*"):
        if path.name not in [part["file"] for part in parts]:
            path.unlink(missing_ok=True)


def load_worker(folder: Path, worker: int, run: str, accept: Callable[[State], None], version: int = 0) -> None:
    """Gives what ``save_worker`` saved to ``accept``, which raises one of MISFITS; reports what cannot be used. Another
    version is better than none."""
    index = folder / f"worker-{worker}.json"
    if not index.exists():
        return
    try:
        parts = _worker_parts(index, worker, run)
        part = next((part for part in parts if part["version"] == version), parts[0])
        accept(_read_part(folder, index.name, part))
        if part["version"] != version:
            text = f"{index.name}: goes on with version {part['version']}, as {version} was not kept"
            print(f"commexp: note: {text}", file=sys.stderr, flush=True)
    except UnusableError as error:
        _note(str(error))
    except MISFITS as error:
        _note(f"{index.name} does not fit the run ({' '.join(str(error).split()) or type(error).__name__})")


def _worker_parts(index: Path, worker: int, run: str) -> list[dict[str, Any]]:
    """The parts that ``save_worker`` has left, the newest first; at least one. Raises UnusableError."""
    about = _read_index(index, run)
    parts = about.get("parts")
    sound = about.get("worker") == worker and isinstance(parts, list) and 1 <= len(parts) <= KEPT
    if not sound or not all(isinstance(part, dict) and type(part.get("version")) is int for part in parts or ()):
        raise UnusableError(index.name, DAMAGED)
    return list(parts or ())


def _check_workers(folder: Path, name: str, about: Mapping[str, Any], run: str) -> None:
    """Raises UnusableError where a version of what another process keeps is missing to the checkpoint ``name``."""
    for rank, version in about.get("versions", {}).items():
        kept: list[dict[str, Any]] = []
        with suppress(UnusableError):
            kept = _worker_parts(folder / f"worker-{rank}.json", int(rank), run)
        if version not in [part["version"] for part in kept]:
            raise UnusableError(name, f"lacks what process {rank} had not yet kept of its workers")


def _note(why: str) -> None:
    print(f"commexp: note: checkpoint {why} and is not used", file=sys.stderr, flush=True)


def _write_part(folder: Path, stem: str, state: State) -> dict[str, Any]:
    content = save({n: t.detach().cpu().contiguous() for n, t in state.items()})
    digest = hashlib.sha256(content).hexdigest()
    name = f"{stem}-{digest[:8]}.safetensors"
    write_atomic(folder / name, content)
    return {"file": name, "bytes": len(content), "sha256": digest}


def _read_part(folder: Path, index: str, part: Mapping[str, Any]) -> State:
    """Raises UnusableError."""
    try:
        name, size, digest = str(part["file"]), int(part["bytes"]), str(part["sha256"])
    except (LookupError, TypeError, ValueError) as error:
        raise UnusableError(index, DAMAGED) from error
    if not PART.fullmatch(name):
        raise UnusableError(index, f"names a file that is none of its own ({name[:80]!r})")
    try:
        if (folder / name).stat().st_size != size:
            raise UnusableError(name, DAMAGED)
        content = read_bytes(folder / name, size)
        if hashlib.sha256(content).hexdigest() != digest:
            raise UnusableError(name, DAMAGED)
        return load(content)
    except (OSError, SafetensorError, *MISFITS) as error:
        raise UnusableError(name, DAMAGED) from error


def _rows(folder: Path, about: dict[str, Any], worker_ids: Sequence[int]) -> State:
    """What is equal everywhere, and the rows of these workers, which are neighbours."""
    state: State = {}
    rows: dict[str, list[Tensor]] = {}
    for part in about["parts"]:
        first, end = part["first"], part["end"]
        low, high = max(first, worker_ids[0]), min(end, worker_ids[-1] + 1)
        if first and low >= high:
            continue
        for name, tensor in _read_part(folder, f"state-{about['completed']}.json", part).items():
            if not has_workers(name):
                state[name] = tensor
            elif tensor.ndim == 0 or len(tensor) != end - first:
                raise ValueError(f"{name}: is {list(tensor.shape)}, for {end - first} workers")
            elif low < high:
                rows.setdefault(name, []).append(tensor[low - first : high - first])
    return {**state, **{name: torch.cat(each) for name, each in rows.items()}}


def _indices(folder: Path) -> list[str]:
    """The checkpoints, newest first; what only looks like one is reported."""
    names = [path.name for path in folder.glob("state-*.json")]
    for name in sorted(names):
        if not INDEX.fullmatch(name):
            _note(f"{' '.join(name.split())} has no number of rounds")
    return sorted((name for name in names if INDEX.fullmatch(name)), key=_number, reverse=True)


def _number(name: str) -> int:
    return int(name.removeprefix("state-").removesuffix(".json"))


def _write_index(path: Path, about: Mapping[str, Any]) -> None:
    write_json(path, {**about, "sha256": _checksum(about)})


def _checksum(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_index(path: Path, run: str) -> dict[str, Any]:
    """Raises UnusableError."""
    try:
        about = read_json(path)
        sound = isinstance(about, dict) and about.pop("sha256", None) == _checksum(about)
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableError(path.name, DAMAGED) from error
    if not sound:
        raise UnusableError(path.name, DAMAGED)
    if about.get("run") != run:
        raise UnusableError(path.name, "is that of another run, or of another version of commexp,")
    return dict(about)


def _read_state(path: Path, run: str) -> dict[str, Any]:
    """Raises UnusableError. What it gives has all keys, and parts that hold one range of workers after the other."""
    about = _read_index(path, run)
    parts, end = about.get("parts"), 0
    sound = about.get("completed") == _number(path.name) and isinstance(about.get("tables"), dict)
    versions = about.get("versions", {})
    sound &= isinstance(versions, dict) and all(k.isdecimal() and type(v) is int for k, v in versions.items())
    if not sound or not isinstance(parts, list) or not parts:
        raise UnusableError(path.name, DAMAGED)
    for part in parts:
        first, behind = (part.get("first"), part.get("end")) if isinstance(part, dict) else (None, None)
        if type(first) is not int or type(behind) is not int or not end == first < behind:
            raise UnusableError(path.name, DAMAGED)
        end = behind
    return about


def _prune(folder: Path, completed: int) -> None:
    """Leaves the last checkpoints and what belongs to them. Later ones than this are of no use: they were passed
    over."""
    names = [path.name for path in folder.glob("state-*.json") if INDEX.fullmatch(path.name)]
    numbers = sorted(n for n in map(_number, names) if n <= completed)[-KEPT:]
    for path in folder.glob("state-*"):
        if not any(path.name.startswith((f"state-{n}.", f"state-{n}-")) for n in numbers):
            with suppress(OSError):
                path.unlink()
