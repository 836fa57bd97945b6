"""Experiments from Python."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from commexp.config import prepare
from commexp.host import hydra_of_our_own, undisturbed
from commexp.launch import launch
from commexp.overrides import legible
from commexp.refusals import CONF, UserError, check_environment, explain
from commexp.rundir import Run
from commexp.sweep import register_resolvers

_turn = threading.RLock()  # torch's threads and defaults, the log and Hydra's state are one for the whole process


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The config that ``overrides`` describe. Raises UserError."""
    check_environment()
    try:
        with _turn, hydra_of_our_own():
            register_resolvers()
            with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
                return compose("config", overrides=legible(overrides))
    except Exception as error:
        raise UserError(explain(error, overrides)) from error


def run_experiment(overrides: Sequence[str], figures: bool = True) -> Run:
    """See ``commexp.run``; ``figures=False`` leaves the run's own picture undrawn."""
    from commexp.report import finish  # pandas, which composing a config does not need

    with _turn, undisturbed():
        plan = prepare(compose_config(overrides), overrides)
        with ExitStack() as hold:  # until it has been shown
            run = launch(plan, hold)
            finish(run, plan.config.target_accuracy, figures)
        return run
