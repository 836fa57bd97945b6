"""``commexp``: compose, validate, launch, report."""

from __future__ import annotations

import gc
import math
import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from commexp.ranks import rank
from commexp.refusals import CONF, LaunchError, UserError, explain
from commexp.rundir import Run
from commexp.schema import register
from commexp.sweep import for_each_job, minimised, record_job, register_resolvers

EXIT = {"completed": 0, "failed": 1, "refused": 2, "diverged": 3, "interrupted": 130}


def run_one(composed: DictConfig) -> Run:
    """Runs one composed experiment and shows its table."""
    from commexp.config import prepare
    from commexp.launch import launch
    from commexp.report import finish, where_to_look

    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    plan = prepare(composed, HydraConfig.get().overrides.task)
    if sweep:
        record_job(HydraConfig.get(), plan)
    gc.freeze()  # what importing left behind need not be looked through again and again
    gc.enable()
    try:
        run = launch(plan)
    except UserError as error:
        if sweep:
            record_job(HydraConfig.get(), plan, error=str(error))
        raise
    if rank() == 0:  # of several processes the first one shows the results
        text = finish(run, plan.config.target_accuracy, figures=not sweep)
        print(f"{run.name}: {run.status}" if sweep else f"\n{text}\n{where_to_look(run)}", flush=True)
    return run


def guarded(composed: DictConfig) -> float:
    """``run_one`` with every ending turned into its exit status; a sweep goes on after a run that ends badly. Returns
    what a sweeper that searches makes small."""
    sweep, small = HydraConfig.get().mode == RunMode.MULTIRUN, math.inf
    try:
        run = run_one(composed)
        status, small = str(run.status), minimised(run)
    except (UserError, LaunchError) as error:
        if rank() == 0 or isinstance(error, LaunchError):  # a mistake is the same for all processes
            complain(str(error))
        status = "refused" if isinstance(error, UserError) else "failed"
    except BrokenPipeError:  # whoever read our table has gone; the run is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = "completed"
    except Exception as error:
        if full_error():
            raise
        complain(f"{type(error).__name__}: {' '.join(str(error).split())}; HYDRA_FULL_ERROR=1 shows where")
        status = "failed"
    if EXIT[status] and (not sweep or status == "interrupted"):
        sys.exit(EXIT[status])
    return small


def complain(text: str) -> None:
    print(f"commexp: error: {text}", file=sys.stderr, flush=True)


def full_error() -> bool:
    return os.environ.get("COMMEXP_FULL_ERROR") == "1"


def main() -> None:
    """The console script."""
    gc.disable()  # until the run begins: importing torch makes a million objects, none of them garbage
    register()
    register_resolvers()
    # Hydra prints its own errors over many lines unless this is set; we turn them into one, unless the user set it
    os.environ.setdefault("COMMEXP_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # what goes wrong between processes is told in one line
    sys.argv[1:] = for_each_job(sys.argv[1:])
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(guarded)()
    except Exception as error:  # what a run raises has been dealt with: this is Hydra, composing
        if full_error():
            raise
        complain(explain(error, sys.argv[1:]))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.unfreeze()  # or libraries that count their objects at exit take them for leaks
