"""The runs and sweeps of a folder at a glance: a list of a thousand takes a second. Imports no torch, and pandas for a
DataFrame alone."""

from __future__ import annotations

import datetime
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from commexp import files
from commexp.metrics import Metric, adopt, foremost, number
from commexp.report.tables import NOT_IN_LABELS, flatten
from commexp.run_folder import Run

if TYPE_CHECKING:
    import pandas as pd

BEGUN = ("meta.json", "config.yaml", "metrics.csv")  # a folder with one of them is a run
MOST = 10_000  # folders without a run in which runs are looked for
DEPTH = 32  # folders within each other
NAMED = ("algo", "compress", "dataset")  # the groups whose names meta.json has
SECTION = re.compile(r"^(?=[^\s#-])", re.MULTILINE)  # where a top key of a YAML file begins
FIRST = ("seed", "algo.lr")  # keys that are shown before others in which runs differ
MAIN = ("algo.lr", "workers", "rounds", "steps")  # keys that are shown where there is room
BLOCK = 512  # bytes that st_blocks counts


class Listed(Run):
    """A run among many: each file is read once, and not before it is asked for. A file that cannot be read, or does not
    hold what a run's does, counts as none."""

    @cached_property
    def meta(self) -> dict[str, Any]:
        return super().meta

    @cached_property
    def status(self) -> str | None:
        return super().status

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Of a run that has not ended, its last evaluation so far."""
        ended = super().summary
        if ended:
            return ended
        try:
            rows = self.rows("metrics")
        except (OSError, ValueError):
            return {}
        return rows[-1] if rows else {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config as flat keys, such as compress.k; to be looked at only."""
        try:
            text = files.read_text(self.folder / "config.yaml")
        except (OSError, ValueError):
            return {}
        try:
            return {key: value for part in SECTION.split(text) if part.strip() for key, value in _section(part)}
        except ValueError:  # not as we write it
            pass
        try:
            return dict(_flat(text))
        except ValueError:
            return {}

    @cached_property
    def overrides(self) -> list[str]:
        """The words by which it was composed, as far as they are known."""
        words = self.meta.get("overrides")
        return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []

    @cached_property
    def values(self) -> dict[str, Any]:
        """All that a query may ask for, by key: meta.json, the summary, the config, and of groups the set of the names
        that the run's component has, without underscores and in small letters."""
        groups: dict[str, set[str]] = {}
        for key, value in self.settings.items():
            if key.endswith("._target_") and isinstance(value, str):
                groups.setdefault(key.removesuffix("._target_"), set()).add(value.rpartition(".")[2])
        for group in NAMED:
            if isinstance(name := self.meta.get(group), str):
                groups.setdefault(group, set()).add(name)
        for word in self.overrides:  # those that give a key its value are in the settings
            group, _, option = word.lstrip("+").partition("=")
            groups.setdefault(group.partition("@")[0].replace("/", "."), set()).add(option)
        names = {group: frozenset(re.sub("[_-]", "", n).lower() for n in some) for group, some in groups.items()}
        return {**self.meta, **self.summary, **names, **self.settings, "status": self.status}

    @cached_property
    def headline(self) -> tuple[Metric, float] | None:
        """The metric that stands for the run, and its last value."""
        adopt(self.meta.get("metrics"))
        for metric in foremost("final"):
            try:
                if not math.isnan(value := number(self.summary.get(metric.name))):
                    return metric, value
            except (TypeError, ValueError):
                continue
        return None

    @property
    def progress(self) -> float:
        """The share of its rounds, or steps, that it has evaluated; NaN where that is not known."""
        done, planned = self.summary.get("round"), self.settings.get("rounds")
        if isinstance(steps := self.settings.get("steps"), int):
            done, planned = self.summary.get("step"), steps
        return done / planned if isinstance(done, int) and isinstance(planned, int) and planned > 0 else math.nan

    @cached_property
    def moment(self) -> float:
        """When it ended, or else began: seconds since 1970; 0 where that is not known."""
        return moment(self.meta.get("ended") if self.status != "running" else None) or moment(self.meta.get("started"))

    @cached_property
    def size(self) -> int:
        return size(self.folder)


def _flat(text: str) -> Iterable[tuple[str, Any]]:
    loaded = files.parsed_yaml(text)
    if not isinstance(loaded, dict):
        raise ValueError("holds no keys with values")
    return flatten(loaded).items()


@lru_cache(8192)
def _section(text: str) -> tuple[tuple[str, Any], ...]:
    """The flat keys of one section of a config, which most runs of a folder have in common: reading them is nearly all
    the time that a list takes. Raises ValueError."""
    return tuple(_flat(text))


def moment(text: Any) -> float:
    """The seconds since 1970 of a time of meta.json; 0 for anything else."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return 0.0


def size(folder: Path) -> int:
    """Bytes on disk of a folder, with what is in it; no links are followed."""
    total, rest = 0, [str(folder)]
    while rest:
        try:
            with os.scandir(rest.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        rest.append(entry.path)
        except OSError:
            continue
    return total


def found(root: Path) -> tuple[list[Path], list[Path]]:
    """The folders of the runs, and of the sweeps, that ``root`` is or holds, in the order of their names. Of outputs,
    which has runs and sweeps beside what was unpacked or repeated, those two; of any other folder, at any depth. Links
    within it are not followed."""
    runs: list[Path] = []
    sweeps: list[Path] = []
    places = [root / "sweeps", root / "runs"] if (root / "runs").is_dir() else [root]
    rest, seen = [(place, 0) for place in places], 0
    while rest:
        folder, depth = rest.pop()
        try:
            with os.scandir(folder) as entries:
                names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:
            continue
        if any(name in names for name in BEGUN):
            runs.append(folder)
        elif names.get("jobs"):
            sweeps.append(folder)
        elif depth < DEPTH and (seen := seen + 1) <= MOST:
            inside = sorted((name for name, is_folder in names.items() if is_folder and name[0] != "."), reverse=True)
            rest += [(folder / name, depth + 1) for name in inside]
    return runs, sweeps


class SweepFolder:
    """A sweep's folder: its tables, and where its runs are."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name

    @cached_property
    def runs(self) -> list[Listed]:
        return [Listed(folder) for folder in runs_of(self.folder)]

    @property
    def statuses(self) -> str:
        """How many of its runs have ended in which way."""
        counts = Counter(str(run.status) for run in self.runs)
        return ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "none"

    @property
    def moment(self) -> float:
        """When its table was written, or else its folder was changed: seconds since 1970."""
        for path in (self.folder / "sweep.csv", self.folder):
            with suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    @cached_property
    def size(self) -> int:
        return size(self.folder)


class Runs(Sequence[Run]):
    """Several runs, in a given order."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = tuple(runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"Runs({[run.name for run in self]})"

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per run: its name, the names of its method, compressor and data, seed, the keys of the config that are
        not the same for all, status, and what summary.json has, or, of a run that has not ended, its last row of
        metrics.csv."""
        import pandas as pd

        listed = [Listed(run.folder) for run in self]
        keys = differing([each.settings for each in listed])
        rows = []
        for each in listed:
            named = {group: each.meta.get(group) for group in NAMED}
            told = {key.removesuffix("._target_"): class_name(each.settings.get(key)) for key in keys}
            ended = {key: value for key, value in each.summary.items() if key not in ("status", *told)}
            head = {"run": each.name, **told, **named, "seed": each.settings.get("seed"), "status": each.status}
            order = ("run", *NAMED, "seed", *told, "status")
            rows.append({**{key: head[key] for key in dict.fromkeys(order)}, **ended})
        frame = pd.DataFrame(rows)
        return frame.replace({"nan": math.nan, "inf": math.inf, "-inf": -math.inf}).infer_objects()


def class_name(value: Any) -> Any:
    """Of the full name of a class, its last word; anything else as it is."""
    return value.rpartition(".")[2] if isinstance(value, str) and re.fullmatch(r"\w+(\.\w+)+", value) else value


def differing(settings: Sequence[Mapping[str, Any]], within: bool = False) -> list[str]:
    """The keys of flat configs that are not the same for all, apart from those that change no result. ``within``: only
    those that are not the same for all that have them."""
    values: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for each in settings:
        for key, value in each.items():
            values.setdefault(key, set()).add(repr(value))
            counts[key] += 1
    apart = {*NOT_IN_LABELS} - {"seed", "preset"}
    return [
        key
        for key, some in values.items()
        if key.partition(".")[0] not in apart and (len(some) > 1 or (counts[key] < len(settings) and not within))
    ]


def main_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each flat config what tells it from the others, then what a reader asks for first, as one types it."""
    keys = [key for key in differing(settings, within=True) if not key.endswith("_target_")]
    order = dict.fromkeys(["compress.k", *(key for key in FIRST if key in keys), *keys, "seed", *MAIN])
    return [
        " ".join(
            f"{key.removeprefix('compress.').removeprefix('algo.')}={_short(each[key])}"
            for key in order
            if each.get(key) is not None
        )
        for each in settings
    ]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else files.printable(str(value)).replace(" ", "")


def human_age(seconds: float) -> str:
    """7200 -> '2 h'; '-' for NaN."""
    if math.isnan(seconds):
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def named(word: str, folders: Sequence[Path], sweeps: Sequence[Path]) -> list[Path]:
    """The runs that a word stands for: those of a folder; of ``folders`` the one of that name, those whose names begin
    so, or that with these 8 hex digits; or those of the one of ``sweeps`` that has this name."""
    if os.path.isdir(word):
        runs, inside = found(Path(word))
        return runs + [run for sweep in inside for run in runs_of(sweep)]
    alike = [folder for folder in folders if folder.name == word]
    alike = alike or [folder for folder in folders if re.fullmatch("[0-9a-f]{8}", word) and folder.name.endswith(word)]
    alike = alike or [run for sweep in sweeps if sweep.name == word for run in runs_of(sweep)]
    return alike or [folder for folder in folders if word and folder.name.startswith(word)]


def runs_of(sweep: Path) -> list[Path]:
    """The folders of a sweep's runs, as far as they are there, in the order of its jobs."""
    paths = [path for path in (sweep / "jobs").glob("*.json") if path.stem.isascii() and path.stem.isdigit()]
    runs = []
    for path in sorted(paths, key=lambda path: (len(path.stem), path.stem)):
        try:
            job = files.read_json(path)
            name, outputs = job["run"], job.get("outputs", "../..")
            if os.path.basename(name) == name and name not in ("", ".", "..") and "\0" not in name + outputs:
                runs.append(Path(os.path.normpath(sweep / outputs)) / "runs" / name)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return [run for run in dict.fromkeys(runs) if run.is_dir()]
