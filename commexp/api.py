"""Experiments from Python."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from commexp.bounds import check_length
from commexp.config import prepare
from commexp.launch import launch
from commexp.refusals import CONF, UserError, explain
from commexp.report import finish
from commexp.rundir import Run
from commexp.schema import register
from commexp.sweep import register_resolvers


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The config that ``overrides`` describe. Raises UserError."""
    register()
    register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
    except Exception as error:
        raise UserError(explain(error, overrides)) from error
    check_length(overrides, composed.steps)
    return composed


def run_experiment(overrides: Sequence[str], figures: bool = True) -> Run:
    """See ``commexp.run``; ``figures=False`` leaves the run's own picture undrawn."""
    plan = prepare(compose_config(overrides))
    run = launch(plan)
    finish(run, plan.config.target_accuracy, figures)
    return run
