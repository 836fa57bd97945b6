"""Multirun sweeps: checked whole before the first run, gathered into one table after the last."""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from commexp.ranks import joins
from commexp.refusals import UserError, choices, explain
from commexp.rundir import Run, write_json
from commexp.schema import COMPONENTS, UNHASHED

if TYPE_CHECKING:
    from hydra.conf import HydraConf

    from commexp.config import Plan

SOUGHT = ("best_test_rmse", "best_objective", "best_train_loss")  # the first that a run has, or its test error
NOT_SWEPT = (set(UNHASHED) | {"cluster"}) - {"preset"}  # overrides that do not tell one sweep from another
GOSSIP_FITS = ("algo", "prox", "topology", "gossip", "seed")  # and, of decentralised methods, these ...
CODED_FITS = ("algo", "allocation", "network", "straggler")  # ... and these of coded ones
DECIDE_FIT = ("dataset", "partition", "model", "compress", "workers", "batch_size", "dtype")
SWEEP = "COMMEXP_SWEEP"  # environment variable: the name of the sweep that is running


def sweep_name(overrides: Sequence[str]) -> str:
    """A folder name from what is swept: the same words, the same folder. A sweep's jobs, also in other processes,
    inherit it."""
    if SWEEP in os.environ:
        return os.environ[SWEEP]
    kept = sorted(o for o in overrides if _tells(o))
    digest = hashlib.blake2b("\n".join(kept).encode(), digest_size=4).hexdigest()
    values = [re.sub(r"[^\w.,-]+", "_", re.sub(r"^choice\((.*)\)$", r"\1", o.partition("=")[2])) for o in kept]
    return f"{'-'.join(values)[:60].strip('-_')}-{digest}"


def for_each_job(words: Sequence[str]) -> list[str]:
    """A multirun's command line, with every single value for a component's field as a choice of one.

    Hydra applies single values already to the config that it composes before the sweep, where ``algo=topk,regtopk``
    has not been chosen yet and ``compress.k=0.01`` finds no k.
    """
    if not {"-m", "--multirun"} & set(words):
        return list(words)
    field = re.compile(rf"({'|'.join(COMPONENTS)})\.[\w.]+=")
    return [_choice_of_one(w) if field.match(w) else w for w in words]


def _choice_of_one(word: str) -> str:
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
    except HydraException:
        return word  # Hydra will say what is wrong with it
    key, _, value = word.partition("=")
    return word if override.is_sweep_override() else f"{key}=choice({value})"


def _tells(override: str) -> bool:
    return re.split(r"[.=]", override.lstrip("+~"), maxsplit=1)[0] not in NOT_SWEPT


def register_resolvers() -> None:
    """What conf/config.yaml calls by name."""
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("choices", choices, replace=True)


def record_job(hydra: HydraConf, plan: Plan, error: str | None = None) -> None:
    """Leaves in the sweep's folder which overrides stand for which run."""
    overrides = [o.lstrip("+~").partition("=") for o in hydra.overrides.task if _tells(o)]
    kept = {key: value for key, _, value in overrides}
    path = Path(hydra.sweep.dir) / "jobs" / f"{hydra.job.num}.json"
    write_json(path, {"overrides": kept, "run": plan.name, "target": plan.config.target_accuracy, "error": error})


def minimised(run: Run) -> float:
    """What hydra/sweeper=optuna makes small: the best test error, or RMSE, or training loss; infinity for a run that
    did not complete."""
    summary = run.summary
    if run.status != "completed":
        return math.inf
    if "best_test_accuracy" in summary:
        return 1.0 - float(summary["best_test_accuracy"])
    return next((float(summary[key]) for key in SOUGHT if key in summary), math.inf)


class SweepCallback(Callback):
    """Hydra calls it at the start and the end of a multirun. Hydra turns a callback's errors into warnings, so what
    must stop the sweep leaves as SystemExit."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            if joins():
                raise UserError("-m: a sweep is not for torchrun to start; give commexp -m launch=torchrun ...")
            check(config)
        except Exception as error:
            print(f"commexp: error: {explain(error, sys.argv[1:])}", file=sys.stderr)
            raise SystemExit(2) from error
        os.environ[SWEEP] = sweep_name(config.hydra.overrides.task)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            code = gather(Path(config.hydra.sweep.dir), len(jobs_of(config)))
        except Exception as error:
            traceback.print_exc()
            raise SystemExit(1) from error
        if code:
            raise SystemExit(code)


def check(config: DictConfig) -> None:
    """Raises UserError, before anything is written, if one of the sweep's jobs would be refused."""
    import torch

    from commexp.config import prepare
    from commexp.runner import folder_of
    from commexp.trial import Trial

    seen = set()
    for overrides in jobs_of(config):
        try:
            plan = prepare(compose("config", overrides=list(overrides)), overrides)
            run, method = folder_of(plan), plan.algorithm
            keys = DECIDE_FIT + GOSSIP_FITS * method.decentralised + CODED_FITS * method.coded
            parts = str([plan.resolved[key] for key in keys])
            if parts not in seen and not run.finished:
                Trial(plan, torch.device("cpu"), run)
            seen.add(parts)
        except Exception as error:
            raise UserError(f"{explain(error, overrides)} (in the sweep's job {' '.join(overrides)})") from error


def gather(folder: Path, count: int) -> int:
    """Writes and shows the table of the sweep's ``count`` jobs; returns the exit status of its worst run."""
    from commexp.report.sweep import write_sweep

    table, jobs = write_sweep(folder, count)
    print(f"\n{table}\nfolder: {folder}")
    if any(job.error for job in jobs):
        return 2
    statuses = {job.run.status for job in jobs}
    return 0 if statuses <= {"completed"} else 3 if statuses <= {"completed", "diverged"} else 1


def jobs_of(config: DictConfig) -> Sequence[Sequence[str]]:
    """The overrides of every job, where Hydra's own sweeper will expand them; none where another one decides."""
    if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
        return []
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(config.hydra.overrides.task))
    return [list(job) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]
