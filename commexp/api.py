"""Experiments from Python. Imports torch for those alone who run one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from commexp.config.messages import UserError, check_environment
from commexp.config.overrides import explain, legible
from commexp.config.query import Query, is_comparison
from commexp.config.schema import CONF
from commexp.ranks import rank
from commexp.report.catalogue import Listed, Runs, found, named
from commexp.run_folder import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from commexp.config.plan import Plan

_one_at_a_time = threading.RLock()  # torch's defaults and threads, the log, Hydra's state belong to the process
Place = str | os.PathLike[str]


def compose_config(overrides: Sequence[str], config_dir: Place | None = None) -> DictConfig:
    """The config that ``overrides`` describe. ``config_dir``: a folder with options of the user's own. Raises
    UserError."""
    from commexp.environment import hydra_of_our_own
    from commexp.launch.sweep import register_resolvers

    check_environment()
    try:
        with _one_at_a_time, hydra_of_our_own():
            register_resolvers()
            with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
                return compose("config", overrides=[*search_path(config_dir), *legible(overrides)])
    except Exception as error:
        raise UserError(explain(error, overrides)) from error


def search_path(config_dir: Place | None) -> list[str]:
    """The overrides by which Hydra looks for options in this folder, too. Raises UserError if there is none."""
    if config_dir is None:
        return []
    folder = Path(config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder; give one with options such as compress/mine.yaml")
    text = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return [f'hydra.searchpath=["file://{text}"]']


def run(
    *overrides: str,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    train: Any = None,
    test: Any = None,
    source: Sequence[Any] | str | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    metrics: Mapping[str, Callable[[nn.Module, Any], Any]] | None = None,
    name: str | None = None,
    config_dir: Place | None = None,
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
    ``config_dir``: a folder with options of your own, such as compress/mine.yaml, as commexp --config-dir has it.

    Raises commexp.config.messages.UserError for a mistake in an override or in what is handed over.
    """
    given = {"model": model, "train": train, "test": test, "source": source, "loss": loss, "metrics": metrics or None}
    handed = {key: value for key, value in given.items() if value is not None}
    words = [*overrides, *([] if name is None else [f"name={name}"])]
    return run_experiment(words, handed=handed, config_dir=config_dir)


def run_experiment(
    overrides: Sequence[str],
    figures: bool = True,
    handed: Mapping[str, Any] | None = None,
    config_dir: Place | None = None,
) -> Run:
    """As ``run``; ``figures=False`` leaves the run's own picture undrawn. ``handed``: what is handed over."""
    from commexp.environment import undisturbed
    from commexp.launch.launch import launch
    from commexp.report.finish import finish
    from commexp.report.target import Target

    with _one_at_a_time, undisturbed():
        plan = plan_of(overrides, handed or {}, config_dir)
        with ExitStack() as hold:  # until it has been shown
            run = launch(plan, hold)
            if rank() == 0:
                finish(run, Target.of(vars(plan.config)), figures)
        return run


def plan_of(overrides: Sequence[str], handed: Mapping[str, Any], config_dir: Place | None = None) -> Plan:
    """The plan, with what is handed over in place. Raises UserError."""
    from commexp.config.plan import prepare

    if not handed:
        return prepare(compose_config(overrides, config_dir), overrides)
    from commexp.config.handed import Handed

    objects = Handed(handed)
    words = [*overrides, *objects.words]
    plan = prepare(compose_config(words, config_dir), words)
    objects.put_into(plan)
    return plan


def sweep(*overrides: str, config_dir: Place | None = None) -> Runs:
    """Runs the grid that ``overrides`` describe, as ``commexp -m OVERRIDES...`` does, one job after the other in this
    process, and returns the runs in their order. Writes the sweep's folder, with its tables and figures, into
    outputs/sweeps. Runs that are there already are not run again.

    A run that fails or diverges is one of those returned, with its status, and the others go on. ``config_dir``: see
    ``run``. Raises commexp.config.messages.UserError, before anything is written, if one of the jobs is invalid, and
    KeyboardInterrupt after Ctrl-C; then the same call goes on from there.
    """
    from commexp.environment import undisturbed
    from commexp.launch.grid import run_grid

    with _one_at_a_time, undisturbed():
        return Runs(run_grid(overrides, search_path(config_dir))[1])


def runs(*query: str, root: Place = "outputs") -> Runs:
    """The runs in the folder ``root`` that ``query`` describes, oldest first; all of them without one.

    ``query``: comparisons such as "algo=dppf", "compress.k<0.1", "seed=0,1" (one of both), "status!=failed" or
    "test_accuracy>=0.9", which all must hold; names of runs or of sweeps, beginnings of names, or folders, of which one
    must hold. Raises commexp.config.messages.UserError for a key or a name that no run has.
    """
    return Runs(Run(each.folder.absolute()) for each in chosen(query, Path(root).expanduser()))


def load(run: Place, root: Place = "outputs") -> Run:
    """The one run that ``run`` describes: a folder, a run's name or its beginning, its 8 hex digits, or a query, see
    ``runs``, in the folder ``root``. Raises commexp.config.messages.UserError if it describes none, or several."""
    return Run(one_of(str(run), Path(root).expanduser()).folder.absolute())


def one_of(word: str, root: Path) -> Listed:
    """As ``load``."""
    several = chosen([word], root)
    if not several:
        raise UserError(f"RUN={word}: no run in {root} fits; commexp-runs list shows those that there are")
    if len(several) > 1:
        names = ", ".join(each.name for each in several[-3:])
        raise UserError(f"RUN={word}: {len(several)} runs fit, such as {names}; give the name of one")
    return several[0]


def chosen(words: Sequence[str], root: Path) -> list[Listed]:
    """The runs in ``root`` that one of the names among ``words`` stands for, if there are any, and that fit all of the
    comparisons among them; oldest first. Raises UserError as ``runs`` does."""
    queries = [Query.read(word) for word in words if is_comparison(word) and not os.path.isdir(word)]
    names = [word for word in words if not is_comparison(word) or os.path.isdir(word)]
    folders, sweeps = found(root)
    if names:
        picked = dict.fromkeys(folder for name in names for folder in _named(name, root, folders, sweeps))
        folders = list(picked)
    listed = [Listed(folder) for folder in folders]
    for query in queries:
        if not any(query.key in each.values for each in listed):
            query.check(())
    fitting = [each for each in listed if all(query.fits(each.values) for query in queries)]
    return sorted(fitting, key=lambda each: each.moment)


def _named(name: str, root: Path, folders: Sequence[Path], sweeps: Sequence[Path]) -> list[Path]:
    if some := named(name, folders, sweeps):
        return some
    raise UserError(f"RUN={name}: no such run in {root}; commexp-runs list shows those that there are")
