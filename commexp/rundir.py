"""The run folder: what a run leaves, written so that no moment of dying can spoil it."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pandas as pd

FINISHED = ("completed", "diverged")
SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it has been built


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replaces ``path`` by ``content`` in one step: temporary file beside it, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(_finite(content), indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The file's object, or an empty one where there is no readable file."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become their names."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Run:
    """One experiment's folder, finished or not."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def status(self) -> str | None:
        return self.meta.get("status")

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def meta(self) -> dict[str, Any]:
        return read_json(self.folder / "meta.json")

    @property
    def on_wall_clock(self) -> bool:
        """Whether ``sim_seconds`` are real ones: where real processes decide whose message comes first."""
        return self.meta.get("clock") == "wall"

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.folder / "summary.json")

    @property
    def config(self) -> dict[str, Any]:
        loaded = yaml.load((self.folder / "config.yaml").read_text(encoding="utf-8"), Loader=SAFE)
        assert isinstance(loaded, dict)
        return loaded

    @property
    def metrics(self) -> pd.DataFrame:
        """A row per evaluation; the columns are explained in the README."""
        return _read_csv(self.folder / "metrics.csv")

    @property
    def traffic(self) -> pd.DataFrame:
        """A row per exchange and direction."""
        return _read_csv(self.folder / "traffic.csv")

    def set_meta(self, **changes: Any) -> None:
        write_json(self.folder / "meta.json", {**self.meta, **changes})

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_atomic(self.folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """``name``.csv: a header and a line per row; numbers in full, so that ``rows`` reads the same ones back."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.folder / f"{name}.csv", text.getvalue())

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows that ``write_rows`` wrote."""
        with open(self.folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]

    def clear(self) -> None:
        """Empties the folder, but for the lock that this process holds."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def make_folder(self) -> None:
        """Makes the folder. Raises OSError if it cannot be made or written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    @contextmanager
    def logging(self, log: logging.Logger, rank: int) -> Iterator[None]:
        """What ``log`` is told goes to run.log, or for another process than the first to logs/rank-<rank>.log; so
        does, there, whatever that process prints."""
        path = self.folder / (f"logs/rank-{rank}.log" if rank else "run.log")
        path.parent.mkdir(exist_ok=True)
        if rank:
            with open(path, "ab") as file:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                    os.dup2(file.fileno(), stream.fileno())
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level = log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.setLevel(level)
            log.removeHandler(handler)
            handler.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; the operating system lets go when its holder dies, however it dies."""
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"commexp: note: {self.name} is being run by another process; waiting for it", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


LOCK = ".lock"


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd  # a third of a second that commexp --help does not need

    return pd.read_csv(path) if path.is_file() and path.stat().st_size > 1 else pd.DataFrame()
