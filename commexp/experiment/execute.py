"""Carries a plan out: what was interrupted is resumed, what is finished is not run again."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from commexp.comm import Links, Processes, bundle, pack_frames
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.experiment.checkpoint import load_worker, save_worker
from commexp.experiment.interrupts import Interrupts
from commexp.experiment.loop import TrainingLoop
from commexp.experiment.setup import ExperimentSetup
from commexp.run_folder import Run
from commexp.server import AtWorker, as_text
from commexp.server.coordinator import Coordinator, Remote
from commexp.server.hub import Hub
from commexp.server.spoke import Spoke

log = logging.getLogger("commexp")


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
    if isinstance(links, Processes) and plan.tolerates_stragglers:
        side = apart(links, plan.algorithm.asynchronous, plan.config.workers, plan.config.launch.port)
    loop = TrainingLoop(plan, device, run, side)
    if isinstance(links, Spoke):  # one that comes back, where all is settled
        follow(loop.setup, links)
        return run
    refusal = "" if links.rank else _cannot_write(run, plan)
    if refusal := links.tell(refusal)[0]:
        raise UserError(refusal)
    if links.rank == 0 and not locked:
        hold.enter_context(run.locked())
        run.tidy()
    if links.first_says(again or not run.finished):
        if isinstance(side, Remote | Spoke):
            follow(loop.setup, side)
        else:
            if isinstance(side, Coordinator | Hub):
                side.listen()
            loop.run_to_end()
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


def apart(links: Processes, asynchronous: bool, workers: int, port: int = 0) -> Links:
    """This process's side where processes need not wait for each other; the server's listens at ``port``."""
    if asynchronous:
        return Spoke(links.rank - 1, links.timeout) if links.rank else Hub(links, port)
    return Remote(links) if links.rank else Coordinator(links, workers, port)


def folder_of(plan: Plan) -> Run:
    """The run's folder, by its absolute path: it is found wherever the process may go."""
    return Run(Path(os.path.expanduser(plan.config.outputs)).absolute() / "runs" / plan.name)


def _cannot_write(run: Run, plan: Plan) -> str:
    try:
        run.make_folder()
    except OSError as error:
        return f"outputs={plan.config.outputs}: cannot be written ({error.strerror}); give a folder that can"
    return ""


def follow(setup: ExperimentSetup, links: Remote | Spoke) -> None:
    """Listens, and works; that there is work says that the run's folder is ready."""
    links.listen()
    with Interrupts():
        if isinstance(links, Remote):
            answer_calls(setup, links)
            return
        assert isinstance(setup.world, AtWorker)
        first, plan = links.next(), setup.plan
        place = (setup.run.folder / "checkpoints", links.worker)
        load_worker(*place, plan.identity, partial(setup.world.accept, links.worker))
        with setup.run.logging(log, links.worker + 1):
            save = partial(save_worker, *place, run=plan.identity)
            setup.world.work(links, first, setup.guard, plan.config.launch.inject, save)


def answer_calls(setup: ExperimentSetup, links: Remote) -> None:
    """Of coded methods: works on the newest call, until there are no more."""
    dtype, call = getattr(torch, setup.plan.config.dtype), links.next()
    with setup.run.logging(log, links.rank):
        while call is not None:
            t, body = call
            setup.guard.round, counted = t + 1, setup.guard.count
            message = setup.algorithm.respond(t, body.view(dtype).to(setup.device))
            fault, bad = setup.guard.fault, setup.guard.count - counted
            if links.wait(setup.pause(t + 1)):
                links.answer(t, bad=bad)  # too late: there is a newer one
            elif fault is not None:
                links.answer(t, as_text(fault.text()), bad, True)
            else:
                links.answer(t, bundle(pack_frames(message, torch.ones(message.workers))), bad)
            call = links.next()
