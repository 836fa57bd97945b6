"""A sweep from Python: the jobs of ``commexp -m``, one after the other in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from commexp.config.messages import UserError, check_environment
from commexp.config.overrides import Word, arranged, explain
from commexp.config.plan import prepare
from commexp.config.schema import CONF
from commexp.environment import hydra_of_our_own
from commexp.experiment.execute import folder_of
from commexp.launch.launch import launch
from commexp.launch.streams import complain
from commexp.launch.sweep import Composer, check, ended, is_sweep, jobs_of, recorded, register_resolvers
from commexp.ranks import Sweep
from commexp.report.finish import finish
from commexp.report.sweep import write_sweep
from commexp.report.target import Target
from commexp.run_folder import Run


def run_grid(overrides: Sequence[str], paths: Sequence[str] = ()) -> tuple[Path, list[Run]]:
    """Runs every job of the grid, and writes the sweep's tables and figures; returns its folder, and the jobs' runs in
    their order. A job that fails, diverges or is refused does not keep the others from running. ``paths``: overrides of
    where Hydra looks for options. Raises UserError before anything is written if a job would be refused, and
    KeyboardInterrupt after Ctrl-C."""
    for word in overrides:
        if word.startswith(("-", "hydra")):
            raise UserError(f"{word}: of the command line alone; give overrides such as algo=topk,regtopk")
    words = arranged(["-m", *overrides])[1:]
    check_environment()
    with ExitStack() as stack:
        try:
            stack.enter_context(hydra_of_our_own())
            register_resolvers()
            stack.enter_context(initialize_config_dir(str(CONF.resolve()), version_base="1.3"))
            single = [word for word in words if not is_sweep(word)]
            kept = [word for word in single if Word.read(word).key == "outputs"]
            hydra = compose("config", overrides=[*paths, *kept], return_hydra_config=True)
            OmegaConf.set_readonly(hydra, False)
            OmegaConf.set_struct(hydra, False)
            hydra.hydra.overrides.task, hydra.hydra.mode = words, RunMode.MULTIRUN
            folder = Path(hydra.hydra.sweep.dir).absolute()
            jobs = [[*paths, *job] for job in jobs_of(hydra)]
            due = check(jobs)
        except Exception as error:
            raise UserError(explain(error, words)) from error
        keys = [Word.read(text).key for text in words if is_sweep(text)]
        stack.enter_context(patch.dict(os.environ))
        sweep = Sweep(str(folder), len(jobs), keys, time.time(), due)
        sweep.forget()
        sweep.tell()
        composer = Composer()
        runs = [_run_job(hydra, number, job, composer) for number, job in enumerate(jobs)]
    write_sweep(folder, len(jobs))
    return folder, runs


def _run_job(config: DictConfig, number: int, words: Sequence[str], composer: Composer) -> Run:
    hydra: Any = config.hydra
    hydra.job.num, hydra.overrides.task = number, [word for word in words if not word.startswith("hydra.")]
    plan = prepare(composer.compose(words), words)
    run = folder_of(plan)
    with ExitStack() as hold:
        try:
            with recorded(hydra, plan):
                run = launch(plan, hold)
            finish(run, Target.of(vars(plan.config)), figures=False)
            print(ended(hydra, run), flush=True)
        except UserError as error:
            complain(str(error))
        except Exception as error:
            complain(f"{run.name}: {type(error).__name__}: {error}")
    if run.status == "interrupted":
        raise KeyboardInterrupt
    return run
