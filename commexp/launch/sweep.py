"""Multirun sweeps: checked whole before the first run, gathered into one table after the last."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from commexp.config.messages import UserError
from commexp.config.overrides import Word, explain, parsed
from commexp.config.schema import UNHASHED, choices, register
from commexp.files import read_yaml
from commexp.launch.streams import complain
from commexp.metrics import Metric, foremost, human_bytes, number, tuned
from commexp.ranks import SWEEP, Sweep, joins
from commexp.run_folder import Run, write_json

if TYPE_CHECKING:
    from hydra.conf import HydraConf

    from commexp.config.plan import Plan
    from commexp.report.aggregate import Job

NOT_SWEPT = (set(UNHASHED) | {"cluster"}) - {"preset"}  # overrides that do not tell one sweep from another
GOSSIP_FITS = ("algo", "prox", "topology", "gossip", "seed")  # and, of decentralised methods, these ...
LATE_FITS = ("algo", "allocation", "network", "straggler", "participation")  # ... and these where some may be missing
DECIDE_FIT = ("dataset", "partition", "model", "compress", "workers", "batch_size", "dtype")
VALIDATE = Sweeper.validate_batch_is_legal


def sweep_folder(outputs: str, overrides: Sequence[str]) -> str:
    """Where a sweep's tables lie; its jobs, also in other processes, are told."""
    told = Sweep.told()
    return told.folder if told else f"{os.path.expanduser(outputs)}/sweeps/{sweep_name(overrides)}"


def sweep_name(overrides: Sequence[str]) -> str:
    """A folder name from what is swept: the same words, the same folder."""
    kept = sorted(o for o in overrides if _tells(o) or is_sweep(o))
    digest = hashlib.blake2b("\n".join(kept).encode(), digest_size=4).hexdigest()
    values = [re.sub(r"[^\w.,-]+", "_", re.sub(r"^choice\((.*)\)$", r"\1", o.partition("=")[2])) for o in kept]
    return f"{'-'.join(values)[:60].strip('-_')}-{digest}"


def _tells(override: str) -> bool:
    return re.split(r"[.=]", override.lstrip("+~"), maxsplit=1)[0] not in NOT_SWEPT


def is_sweep(override: str) -> bool:
    """Whether the override gives several values."""
    try:
        return parsed(override).is_sweep_override()
    except HydraException:
        return False


def register_resolvers() -> None:
    """What conf/config.yaml calls by name, its schema too."""
    register()
    OmegaConf.register_new_resolver("commexp_sweep_folder", sweep_folder, replace=True)
    OmegaConf.register_new_resolver("commexp_choices", choices, replace=True)


@contextmanager
def recorded(hydra: HydraConf, plan: Plan) -> Iterator[None]:
    """Around a job of a sweep: its folder says which overrides stand for which run, and whether it was refused. Around
    another run nothing happens."""
    if hydra.mode != RunMode.MULTIRUN:
        os.environ.pop(SWEEP, None)  # of a sweep whose job has started this one
        yield
        return
    sweep = begin_job(hydra, plan)
    try:
        yield
    except UserError as error:
        record_job(hydra, plan, error=str(error))
        raise
    finally:
        sweep.note("E")


def begin_job(hydra: HydraConf, plan: Plan) -> Sweep:
    """Records a job, and says which one begins, with which setting, and how long the sweep still takes."""
    from commexp.experiment.progress import remaining
    from commexp.report.terminal import in_terminal

    sweep = replace(Sweep.told() or Sweep(hydra.sweep.dir, 0), job=hydra.job.num)
    sweep.tell()
    settings = {key: value for key, value in _settings(hydra).items() if key in sweep.keys or not sweep.keys}
    words = [f"{key}={value}" for key, value in {**settings, "seed": str(plan.config.seed)}.items()]
    line = f"{plan.name}  {sweep.place}{remaining(sweep)}: {' '.join(words)}"
    print(in_terminal([line]) if sys.stdout.isatty() else line, flush=True)
    record_job(hydra, plan)
    sweep.note("B")
    return sweep


def ended(hydra: HydraConf, run: Run) -> str:
    """How a job has ended, and with what. After the first one of a search that tunes on the test set, the user is told
    so."""
    metric, dataset = tuned(run.summary), run.config["dataset"]
    on_test = metric is not None and metric.name.startswith("test_") and dataset.get("validation") is None
    if on_test and searches(hydra) and hydra.job.num == 0:
        held = "give dataset.validation=..., a number of training samples that take its place"
        right = held if "validation" in dataset else "report results on other data"
        print(f"commexp: note: the search tunes on the test set; {right}", file=sys.stderr, flush=True)
    stopped, summary = run.summary.get("stopped_by"), run.summary
    value = next((m for m in foremost("final") if m.name in summary), None)
    told = [f"{value.label} {value.show(summary[value.name])}"] if value else []
    told += [f"{human_bytes(number(summary['bytes_sent']))} sent"] if "bytes_sent" in summary else []
    return ", ".join([f"{run.name}: {run.status}", *([f"stopped by {stopped}"] if stopped else []), *told])


def record_job(hydra: HydraConf, plan: Plan, error: str | None = None) -> None:
    """Leaves in the sweep's folder which overrides stand for which run, and where that lies."""
    folder = Path(hydra.sweep.dir).absolute()
    job = {
        "overrides": _settings(hydra),
        "run": plan.name,
        "outputs": os.path.relpath(Path(plan.config.outputs).expanduser(), folder),
        "target": plan.config.target_accuracy,
        "target_loss": plan.config.target_loss,
        "error": error,
    }
    write_json(folder / "jobs" / f"{hydra.job.num}.json", job)


def _settings(hydra: HydraConf) -> dict[str, str]:
    """What a job's overrides set, and is not the same for all sweeps."""
    told = Sweep.told()
    swept = told.keys if told else ()
    words = map(Word.read, hydra.overrides.task)
    return {word.key: word.value or "" for word in words if _tells(f"{word.key}=") or word.key in swept}


def minimised(run: Run) -> float:
    """What hydra/sweeper=optuna makes small: the best value of the metric that is tuned for; infinity for a run that
    did not complete."""
    summary = run.summary
    metric = tuned(summary)
    if run.status != "completed" or metric is None:
        return math.inf
    return float(_turned(metric, float(summary[metric.best])))


def _turned(metric: Metric, value: float) -> float:
    """From a metric's value to what is made small, and back."""
    return value if metric.better == "lower" else 1.0 - value if metric.scale == "percent" else -value


def best_setting(folder: Path, jobs: Sequence[Job]) -> str:
    """A line with what a search has found, with three digits of each number, and its value; empty where no trial has
    completed. Optuna leaves all digits in optimization_results.yaml."""
    from commexp.report.aggregate import varied

    path = folder / "optimization_results.yaml"
    found = read_yaml(path) if path.is_file() else {}
    params, value = found.get("best_params"), found.get("best_value")
    metric = next((m for job in jobs if (m := tuned(job.run.summary))), None)
    if not isinstance(params, dict) or not isinstance(value, float) or metric is None or not math.isfinite(value):
        return ""
    told = {key: f"{v:.3g}" if isinstance(v, float) else str(v) for key, v in params.items() if key in varied(jobs)}
    setting = " ".join(f"{key}={text}" for key, text in told.items())
    return f"best setting: {setting} (best {metric.label} {metric.show(_turned(metric, value))}); see {path.name}"


class SweepCallback(Callback):
    """Hydra calls it at the start and the end of a multirun. Hydra turns a callback's errors into warnings, so what
    must stop the sweep leaves as SystemExit."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        words = list(config.hydra.overrides.task)
        try:
            if joins():
                raise UserError("-m: a sweep is not for torchrun to start; give commexp -m launch=torchrun ...")
            os.environ.pop(SWEEP, None)  # of a sweep whose job has started this one
            jobs = jobs_of(config)
            self.folder, self.jobs = Path(config.hydra.sweep.dir).absolute(), len(jobs)
            if searches(config.hydra):
                forget_jobs(self.folder)
                due = "1" * int(config.hydra.sweeper.get("n_trials") or 0)
            else:
                due = check(jobs)
                Sweeper.validate_batch_is_legal = is_checked  # type: ignore[method-assign]
        except Exception as error:
            complain(explain(error, words))
            raise SystemExit(2) from error
        several = [text for text in words if is_sweep(text) and not re.fullmatch(r"[^=]+=choice\([^,]*\)", text)]
        keys = [Word.read(text).key for text in several]
        sweep = Sweep(str(self.folder), len(due), keys, time.time(), due)
        sweep.forget()
        sweep.tell()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        Sweeper.validate_batch_is_legal = VALIDATE  # type: ignore[method-assign]
        try:
            code = gather(self.folder, self.jobs, searches(config.hydra))
        except Exception as error:
            traceback.print_exc()
            raise SystemExit(1) from error
        if code:
            raise SystemExit(code)


def is_checked(self: Sweeper, batch: Sequence[Sequence[str]]) -> None:
    """What Hydra's sweeper does instead of composing every job once more before the first begins."""


def check(jobs: Sequence[Sequence[str]]) -> str:
    """Which jobs have to be run, see Sweep. Raises UserError, before anything is written, if one of them would be
    refused."""
    import torch

    from commexp.config.plan import prepare
    from commexp.experiment.execute import folder_of
    from commexp.experiment.progress import checking
    from commexp.experiment.setup import ExperimentSetup

    if not jobs:
        raise UserError("-m: the sweep has no jobs; give every key at least one value")
    seen, composer, due = set(), Composer(), ""
    for overrides in checking(jobs):
        try:
            plan = prepare(composer.compose(overrides), overrides)
            run, method = folder_of(plan), plan.algorithm
            keys = DECIDE_FIT + GOSSIP_FITS * method.decentralised + LATE_FITS * plan.calls
            parts = str([plan.config.stop.accuracy is None, *(plan.resolved[key] for key in keys)])
            if parts not in seen and not run.finished:
                ExperimentSetup(plan, torch.device("cpu"), run)
            seen.add(parts)
            due += "1" if plan.config.rerun or not run.finished else "0"
        except Exception as error:
            job = " ".join(o for o in overrides if not o.startswith("hydra."))
            raise UserError(f"{explain(error, overrides)} (in the sweep's job {job})") from error
    return due


class Composer:
    """Composes many jobs that differ in a few values. Reading and merging the files takes nearly all the time, and
    depends on the options alone: that is done once for each choice of them."""

    def __init__(self) -> None:
        self.groups = set(GlobalHydra.instance().config_loader().list_groups(""))
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """What Hydra's ``compose`` gives. Raises what it raises."""
        words = [parsed(word) for word in overrides]
        values = [p for p in words if p.type is OverrideType.CHANGE and not self._chooses(p)]
        kept = tuple(str(p.input_line) for p in words if p not in values)
        if kept not in self.composed:
            self.composed[kept] = compose("config", overrides=list(kept))
        config = copy.deepcopy(self.composed[kept])
        try:
            for value in values:
                OmegaConf.update(config, value.key_or_group, value.value(), merge=True)
        except OmegaConfBaseException:
            return compose("config", overrides=list(overrides))  # it says what is wrong
        return config

    def _chooses(self, override: Override) -> bool:
        """Whether it is an option of a group, not a value."""
        key = override.key_or_group
        return "/" in key or key in self.groups or key.startswith("hydra.") or override.package is not None


def forget_jobs(folder: Path) -> None:
    """What an earlier search has left in its folder: nobody knows beforehand how many trials this one has."""
    for path in (folder / "jobs").glob("*.json"):
        path.unlink(missing_ok=True)


def gather(folder: Path, count: int, search: bool = False) -> int:
    """Writes and shows the table of the sweep's ``count`` jobs, and of a ``search`` the best setting; returns the exit
    status of its worst run."""
    from commexp.report.sweep import write_sweep
    from commexp.report.terminal import in_terminal

    if not any((folder / "jobs").glob("*.json")):
        complain(f"{folder}: none of the sweep's jobs has begun, so that it has no row")
        return 1
    table, jobs, left = write_sweep(folder, count, search)
    for one in left:
        print(f"commexp: note: {one.name}: {one.why}", file=sys.stderr)
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    print(f"\n{in_terminal([table], near / 'sweep.md')}\nfolder: {near}")
    if search and (best := best_setting(folder, jobs)):
        print(best)
    if all(job.error or job.run.problem or job.run.metrics.empty for job in jobs):
        complain(f"{near}: no row of results; none of the sweep's {len(jobs)} jobs has got that far")
    if any(job.error for job in jobs):
        return 2
    statuses = {"unreadable"} if left else {job.run.status for job in jobs}
    return 0 if statuses <= {"completed"} else 3 if statuses <= {"completed", "diverged"} else 1


def searches(hydra: HydraConf) -> bool:
    """Whether a sweeper other than Hydra's own chooses the values, by what came of earlier ones."""
    return not str(hydra.sweeper._target_).endswith("BasicSweeper")


def jobs_of(config: DictConfig) -> Sequence[Sequence[str]]:
    """The overrides of every job, where Hydra's own sweeper will expand them; none where another one decides."""
    if searches(config.hydra):
        return []
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(config.hydra.overrides.task))
    return [list(job) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]
