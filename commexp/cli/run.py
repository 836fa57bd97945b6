"""``commexp``: compose, validate, launch, report."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import ExitStack

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from commexp.cli import rerun
from commexp.config.messages import LaunchError, UserError, check_environment
from commexp.config.overrides import arranged, composing_once, explain
from commexp.config.schema import CONF
from commexp.launch.streams import complain, full_error, leave, lenient_streams
from commexp.launch.sweep import ended, minimised, recorded, register_resolvers
from commexp.ranks import joins, rank

EXIT = {"completed": 0, "failed": 1, "refused": 2, "diverged": 3, "interrupted": 130}


def run_one(composed: DictConfig) -> tuple[str, float]:
    """Runs one composed experiment and shows its table; its status, and what a sweeper that searches makes small."""
    from commexp.config.plan import prepare
    from commexp.launch.launch import launch
    from commexp.launch.single import keep_memory
    from commexp.report.finish import finish, where_to_look
    from commexp.report.target import Target
    from commexp.report.terminal import in_terminal

    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    os.chdir(HydraConfig.get().runtime.cwd)  # paths count from where the command was typed, also in hydra.job.chdir
    plan = prepare(composed, HydraConfig.get().overrides.task)
    keep_memory()
    with recorded(HydraConfig.get(), plan), ExitStack() as hold:  # until it has been shown
        run = launch(plan, hold)
        if rank() == 0:  # of several processes the first one shows the results
            blocks = finish(run, Target.of(vars(plan.config)), figures=not sweep)
            whole = "\n" + in_terminal([*blocks, where_to_look(run)])
            print(ended(HydraConfig.get(), run) if sweep else whole, flush=True)
        return str(run.status), minimised(run)


def guarded(composed: DictConfig) -> float:
    """``run_one``, its ending as exit status; a sweep goes on after a bad one. Returns what a search makes small."""
    sweep, small = HydraConfig.get().mode == RunMode.MULTIRUN, float("inf")
    try:
        status, small = run_one(composed)
    except (UserError, LaunchError) as error:
        if rank() == 0 or isinstance(error, LaunchError):  # a mistake is the same for all processes
            complain(str(error))
        status = "refused" if isinstance(error, UserError) else "failed"
    except Exception as error:
        if full_error():
            raise
        complain(f"{type(error).__name__}: {' '.join(str(error).split())}; HYDRA_FULL_ERROR=1 shows where")
        status = "failed"
    if joins() and not sweep:
        leave(EXIT[status])
    if EXIT[status] and (not sweep or status == "interrupted"):
        sys.exit(EXIT[status])
    return small


@lenient_streams()
def main() -> None:
    """The console script."""
    gc.disable()  # until the run begins: importing torch makes a million objects, none of them garbage
    register_resolvers()
    # Hydra prints its own errors over many lines unless this is set; we turn them into one, unless the user set it
    os.environ.setdefault("COMMEXP_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ |= {"HYDRA_FULL_ERROR": "1", "PYTHONSAFEPATH": "1"}  # processes import nothing from the current folder
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # what goes wrong between processes is told in one line
    typed = sys.argv[1:]
    try:
        if typed[:1] == ["rerun"]:
            rerun.main(typed[1:])
        sys.argv[1:] = arranged(typed)
        check_environment()
        with composing_once(typed):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(guarded)()
    except Exception as error:  # what a run raises has been dealt with: this is Hydra, composing
        if full_error():
            raise
        complain(explain(error, typed))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.unfreeze()  # or libraries that count their objects at exit take them for leaks
