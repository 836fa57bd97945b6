"""Experiments from Python."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from commexp.config.messages import UserError, check_environment
from commexp.config.overrides import explain, legible
from commexp.config.plan import prepare
from commexp.config.schema import CONF
from commexp.environment import hydra_of_our_own, undisturbed
from commexp.launch.launch import launch
from commexp.launch.sweep import register_resolvers
from commexp.run_folder import Run

_one_at_a_time = threading.RLock()  # torch's defaults and threads, the log, Hydra's state belong to the process


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The config that ``overrides`` describe. Raises UserError."""
    check_environment()
    try:
        with _one_at_a_time, hydra_of_our_own():
            register_resolvers()
            with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
                return compose("config", overrides=legible(overrides))
    except Exception as error:
        raise UserError(explain(error, overrides)) from error


def run(*overrides: str) -> Run:
    """Runs the experiment that ``overrides`` describe, as ``commexp OVERRIDES...`` does, and returns its folder.

    A finished identical run is returned as it is. What the caller has set in torch, Hydra, Python has no part in the
    result, and is afterwards as it was; of several threads that call, one runs at a time. Raises
    commexp.config.messages.UserError for a mistake in an override.
    """
    return run_experiment(overrides)


def run_experiment(overrides: Sequence[str], figures: bool = True) -> Run:
    """As ``run``; ``figures=False`` leaves the run's own picture undrawn."""
    from commexp.report.finish import finish  # pandas, which composing a config does not need
    from commexp.report.target import Target

    with _one_at_a_time, undisturbed():
        plan = prepare(compose_config(overrides), overrides)
        with ExitStack() as hold:  # until it has been shown
            run = launch(plan, hold)
            finish(run, Target.of(vars(plan.config)), figures)
        return run
