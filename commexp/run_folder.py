"""The run folder: what a run leaves, written so that no moment of dying can spoil it."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from commexp import files

if TYPE_CHECKING:
    import pandas as pd

FINISHED = ("completed", "diverged")
FORMATS = ("png", "pdf")  # of each figure
READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # no fifo blocks it


#: what ``write_atomic`` leaves beside a file, or a picture's older writer, when it is killed
LITTER = re.compile(r"\..+\.(csv|json|yaml|md|tex|html|png|pdf|npy|safetensors)\.[^.]+|tmp\w{8}\.(png|pdf)")


def write_atomic(path: Path, content: bytes | bytearray | str) -> None:
    """Replaces ``path`` by ``content`` in one step: temporary file beside it, fsync, rename. Its permissions are what
    the user's umask leaves. Raises OSError, which names ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content)


def replace(path: Path, content: bytes | bytearray | str) -> None:
    """The same in a folder that is there."""
    temporary = None
    try:
        handle, temporary = _beside(path)
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # before it is closed, and no longer held
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def _beside(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``. This process holds its lock, so that ``sweep_up`` does not remove it."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if hold(handle):
                return handle, temporary
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def sweep_up(folder: Path) -> None:
    """Removes the temporary files that killed writers left in ``folder``, but not those of a living writer."""
    with suppress(OSError):
        for path in folder.iterdir():
            if LITTER.fullmatch(path.name) and not path.is_dir():
                remove_unheld(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, as_json(content))


def as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(_finite(content), indent=2) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The file's object, or an empty one where there is no readable file."""
    try:
        loaded = files.read_json(path)
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
    _place: list[tuple[int, int]] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def status(self) -> str | None:
        """running, completed, interrupted, diverged or failed; None where there is no run. If meta.json says running
        and no process holds the lock, the run was killed: its status is interrupted."""
        said = self.recorded
        return "interrupted" if said == "running" and is_held(self.folder / LOCK) is False else said

    @property
    def recorded(self) -> str | None:
        """The status in meta.json."""
        said = self.meta.get("status")
        return said if isinstance(said, str) else None

    @property
    def finished(self) -> bool:
        return self.recorded in FINISHED

    @property
    def meta(self) -> dict[str, Any]:
        return read_json(self.folder / "meta.json")

    @property
    def on_wall_clock(self) -> bool:
        """Whether ``sim_seconds`` is real time: the run was one of real processes that do not wait for each other."""
        return self.meta.get("clock") == "wall"

    @property
    def clock_counts(self) -> tuple[bool, bool]:
        """Whether ``sim_seconds`` has the time of computing, and of encoding and decoding, by the config; as if it had
        where that cannot be read or is from before it said so."""
        try:
            return self._counts(self.config)
        except (OSError, ValueError):
            return True, True

    def _counts(self, config: dict[str, Any]) -> tuple[bool, bool]:
        network = config.get("network")
        compute = network.get("compute") if isinstance(network, dict) else None
        if self.on_wall_clock or not isinstance(compute, dict):
            return True, True
        measured = compute.get("kind") == "measured"
        computing = measured or compute.get("kind") == "trace" or bool(compute.get("seconds") or compute.get("flops"))
        return computing, measured or bool(compute.get("coding"))

    @property
    def on_clock(self) -> str:
        return clock_label(*self.clock_counts)

    @property
    def clock_note(self) -> str:
        return self.note_on_clock(self.config)

    def note_on_clock(self, config: dict[str, Any]) -> str:
        """How to count what is left out; nothing of the coding where there is no compressor. ``config``: this run's."""
        (computing, coding), compress = self._counts(config), config.get("compress")
        if not computing:
            how = "network.compute=h100 or network.compute.seconds=0.02"
            return f"note: computing takes no time on the virtual clock; {how} counts it"
        plain = isinstance(compress, dict) and str(compress.get("_target_")).endswith(".NoCompression")
        if not coding and not plain:
            how = "network.compute.coding=measured"
            return f"note: encoding and decoding take no time on the virtual clock; {how} counts them"
        return ""

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.folder / "summary.json")

    @property
    def config(self) -> dict[str, Any]:
        """As plain values. Raises OSError or ValueError where it cannot be read."""
        loaded = files.read_yaml(self.folder / "config.yaml")
        if not isinstance(loaded, dict):
            raise ValueError("holds no keys with values")
        return loaded

    @property
    def metrics(self) -> pd.DataFrame:
        """A row per evaluation; the columns are explained in docs/results.md."""
        return self.table("metrics")

    @property
    def traffic(self) -> pd.DataFrame:
        """A row per exchange and direction."""
        return self.table("traffic")

    def table(self, name: str, /, **types: str) -> pd.DataFrame:
        """``name``.csv; empty where there is none, or nothing in it. ``types``: those of some columns; pandas
        guesses the others. Raises OSError or ValueError for one that cannot be read."""
        import pandas as pd  # a third of a second that commexp --help does not need

        path = self.folder / f"{name}.csv"
        text = files.read_csv(path) if os.path.lexists(path) else ""
        return pd.read_csv(io.StringIO(text), low_memory=False, dtype=types) if text else pd.DataFrame()

    def set_meta(self, **changes: Any) -> None:
        self.write("meta.json", as_json({**self.meta, **changes}))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self.write("summary.json", as_json(summary))

    def write_config(self, config: Mapping[str, Any]) -> None:
        self.write("config.yaml", yaml.dump(dict(config), Dumper=_Plain, sort_keys=False))

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``name``.csv: a header and a line per row. ``rows`` reads the same numbers back."""
        self.write(f"{name}.csv", as_csv(rows, list(rows[0]) if rows else []))

    def write(self, name: str, content: bytes | bytearray | str) -> None:
        """Writes the file ``name`` in one step. Raises FileNotFoundError if the locked folder is gone."""
        if self._place:  # this process holds the lock
            self.check_place()
            replace(self.folder / name, content)
        else:
            write_atomic(self.folder / name, content)

    def check_place(self) -> None:
        """Raises FileNotFoundError if the locked folder was removed, renamed or replaced."""
        try:
            there = [_identity(self.folder)]
        except OSError:
            there = []
        if self._place and there != self._place:
            gone = "the run's folder has been removed or renamed while the run went on"
            raise FileNotFoundError(errno.ENOENT, gone, str(self.folder))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows that ``write_rows`` wrote. Raises OSError or ValueError for a file that cannot be read."""
        text = io.StringIO(files.read_csv(self.folder / f"{name}.csv"), newline="")
        return [{key: from_cell(text) for key, text in row.items()} for row in csv.DictReader(text)]

    def clear(self) -> None:
        """Empties the folder except for the lock, which this process holds."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes the temporary files of killed writers, and the checkpoints of a finished run. The caller holds the
        lock."""
        for folder in (self.folder, self.folder / "checkpoints", self.folder / "figures"):
            sweep_up(folder)
        if self.finished:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def make_folder(self) -> None:
        """Makes the folder. Raises OSError if it cannot be made or written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    @contextmanager
    def logging(self, log: logging.Logger, rank: int) -> Iterator[None]:
        """Writes the messages of ``log`` to run.log. Every process but the first writes them to logs/rank-<rank>.log,
        together with everything that it prints."""
        path = self.folder / (f"logs/rank-{rank}.log" if rank else "run.log")
        path.parent.mkdir(exist_ok=True)
        if rank:
            with open(path, "ab") as file:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                    os.dup2(file.fileno(), stream.fileno())
        handler = RunLog(path, encoding="utf-8")
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

    def is_locked(self) -> bool:
        """Whether a process runs this experiment now."""
        return bool(is_held(self.folder / LOCK))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's lock: one process at a time. The operating system releases the lock when its holder dies."""
        lock = FileLock(self.folder / LOCK)
        try:
            try:
                lock.acquire(timeout=GLANCE, poll_interval=GLANCE / 10)
            except Timeout:
                print(f"commexp: note: {self.name} is being run by another process; waiting for it", file=sys.stderr)
                lock.acquire()
            self._place[:] = [_identity(self.folder)]
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(self.folder)) from error
        try:
            yield
        finally:
            self._place.clear()
            lock.release()


class RunLog(logging.FileHandler):
    """A full disk ends the run with a line of its own; the log does not print a traceback for each of its lines."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


LOCK = ".lock"
GLANCE = 0.5  # seconds: others may hold the lock for a moment to see whether it is held


def _identity(folder: Path) -> tuple[int, int]:
    about = os.stat(folder)
    return about.st_dev, about.st_ino


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], header: bool = True) -> str:
    """A line per row, after one of the columns' names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class _Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # four times as fast, if available
    """A list that occurs twice is written twice: a file with aliases would not be read again."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def from_cell(text: str) -> int | float | str:
    """What a cell of a CSV file stands for."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def is_held(path: Path) -> bool | None:
    """Whether a process holds the lock on this file; None where that cannot be known. Writes nothing. A process that
    wants the lock at that moment must try a second time."""
    try:
        handle = os.open(path, READING)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)
    return False


def hold(handle: int) -> bool:
    """Locks the open file until it is closed. False if the file has been removed in the meantime."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    return os.fstat(handle).st_nlink > 0


def remove_unheld(path: Path) -> None:
    """Removes a file or a folder unless a process holds its lock, or that cannot be known. Ignores errors."""
    with suppress(OSError):
        handle = os.open(path, READING | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(handle)


def clock_label(computing: bool, coding: bool) -> str:
    """What to say of virtual seconds that have or have not the time of computing, and of encoding and decoding; nothing
    where they have that of computing."""
    return "" if computing else "communication and coding only" if coding else "communication only"


def on_clocks(runs: Iterable[Run]) -> str:
    """The label of the virtual seconds of several runs."""
    labels = dict.fromkeys(run.on_clock for run in runs)
    return next(iter(labels), "") if len(labels) < 2 else "some with " + " or ".join(text for text in labels if text)
