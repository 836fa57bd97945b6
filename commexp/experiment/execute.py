"""Carries a plan out; what was interrupted goes on, what is finished is not run again."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import torch

from commexp.comm import Links
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.experiment.following import follow
from commexp.experiment.loop import TrainingLoop
from commexp.run_folder import Run
from commexp.server.endpoints import endpoint


def execute(plan: Plan, device: torch.device, links: Links | None = None, hold: ExitStack | None = None) -> Run:
    """Runs the plan to its end, or shows that it has been run. All of its processes call this together; the first one
    writes, and holds the run's lock until ``hold`` is closed. Raises UserError before anything is written."""
    with ExitStack() as own:
        return _execute(plan, device, links or Links(), hold or own)


def _execute(plan: Plan, device: torch.device, links: Links, hold: ExitStack) -> Run:
    run, again = folder_of(plan), plan.config.rerun
    locked = links.rank == 0 and not again and lock_finished(run, hold)
    if links.first_says(not again and run.finished):
        return run
    side = links
    if links.collective and plan.tolerates_stragglers:
        wanted, workers, asynchronous = plan.config.launch, plan.config.workers, plan.algorithm.asynchronous
        side = endpoint(links.rank, links.processes, wanted.timeout, workers, asynchronous, wanted.port)
    running = TrainingLoop(plan, device, run, side)
    if links.worker is not None:  # this process takes the place of one that has died while the run goes on
        follow(running, links.worker)
        return run
    refusal = "" if links.rank else _cannot_write(run, plan)
    if refusal := links.tell(refusal)[0]:
        raise UserError(refusal)
    if links.rank == 0 and not locked:
        hold.enter_context(run.locked())
        run.tidy()
    if links.first_says(again or not run.finished):
        if side.worker is not None:
            follow(running, side.worker)
        else:
            if side.server is not None:
                side.server.listen()
            running.run_to_end()
    return run


def lock_finished(run: Run, hold: ExitStack) -> bool:
    """Whether ``hold`` has the lock of a run that was finished, so that nobody runs it again while it is shown, and
    what was left behind has been put away. A run that is not, or whose folder cannot be written, is not locked."""
    if not run.finished:
        return False
    try:
        hold.enter_context(run.locked())
    except OSError:
        return False
    run.tidy()
    return True


def folder_of(plan: Plan) -> Run:
    """The run's folder, by its absolute path: it is found wherever the process may go."""
    return Run(Path(os.path.expanduser(plan.config.outputs)).absolute() / "runs" / plan.name)


def _cannot_write(run: Run, plan: Plan) -> str:
    try:
        run.make_folder()
    except OSError as error:
        return f"outputs={plan.config.outputs}: cannot be written ({error.strerror}); give a folder that can"
    return ""
