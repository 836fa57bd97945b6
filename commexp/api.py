"""Experiments from Python."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from commexp.config.messages import UserError, check_environment
from commexp.config.overrides import explain, legible
from commexp.config.plan import Plan, prepare
from commexp.config.schema import CONF
from commexp.environment import hydra_of_our_own, undisturbed
from commexp.launch.launch import launch
from commexp.launch.sweep import register_resolvers
from commexp.ranks import rank
from commexp.run_folder import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

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


def run(
    *overrides: str,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    train: Any = None,
    test: Any = None,
    source: Sequence[Any] | str | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    metrics: Mapping[str, Callable[[nn.Module, Any], Any]] | None = None,
    name: str | None = None,
) -> Run:
    """Runs the experiment that ``overrides`` describe, as ``commexp OVERRIDES...`` does, and returns its folder.

    A finished identical run is returned as it is. What the caller has set in torch, Hydra, Python has no part in the
    result, and is afterwards as it was; of several threads that call, one runs at a time.

    ``model``: a torch module, or a function that returns one; its initialisation, drawn from the run's seed where it is
    a function, is x_0. It is not changed: training works on copies. ``train``, ``test``: samples: a torch Dataset with
    a length, or a tensor, tuple or dict of tensors [m, ...]. ``source``: for partition=by_source, an id of where each
    training sample comes from, such as its writer, or the name of a column of ``train``. ``loss``: called with the
    module and a batch, returns the mean loss over the batch, a scalar; without it the module's own or cross entropy,
    see problems/tasks.py.
    ``metrics``: by name, called alike; the mean over the test set becomes the column test_<name>. ``name``: what the
    run's folder is called in place of the dataset. Source and values of what is handed over are part of the run's
    identity. Objects stay in this process: for launch=torchrun give full names of functions as overrides,
    model=module model.factory=my_module.make_model, dataset=module dataset.factory=..., loss=my_module.loss.

    Raises commexp.config.messages.UserError for a mistake in an override or in what is handed over.
    """
    given = {"model": model, "train": train, "test": test, "source": source, "loss": loss, "metrics": metrics or None}
    handed = {key: value for key, value in given.items() if value is not None}
    words = [*overrides, *([] if name is None else [f"name={name}"])]
    return run_experiment(words, handed=handed)


def run_experiment(overrides: Sequence[str], figures: bool = True, handed: Mapping[str, Any] | None = None) -> Run:
    """As ``run``; ``figures=False`` leaves the run's own picture undrawn. ``handed``: what is handed over."""
    from commexp.report.finish import finish  # pandas, which composing a config does not need
    from commexp.report.target import Target

    with _one_at_a_time, undisturbed():
        plan = plan_of(overrides, handed or {})
        with ExitStack() as hold:  # until it has been shown
            run = launch(plan, hold)
            if rank() == 0:
                finish(run, Target.of(vars(plan.config)), figures)
        return run


def plan_of(overrides: Sequence[str], handed: Mapping[str, Any]) -> Plan:
    """The plan, with what is handed over in place. Raises UserError."""
    if not handed:
        return prepare(compose_config(overrides), overrides)
    from commexp.config.handed import Handed

    objects = Handed(handed)
    words = [*overrides, *objects.words]
    plan = prepare(compose_config(words), words)
    objects.put_into(plan)
    return plan
