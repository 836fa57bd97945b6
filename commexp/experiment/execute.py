"""Carries a plan out: what was interrupted is resumed, what is finished is not run again."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from commexp.algorithms.base import WorkItem
from commexp.comm import Links, bundle, pack_frames
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.experiment.checkpoint import load_worker, save_worker
from commexp.experiment.interrupts import Interrupts
from commexp.experiment.loop import TrainingLoop
from commexp.experiment.setup import ExperimentSetup
from commexp.run_folder import Run
from commexp.server.channel import as_text
from commexp.server.endpoints import FAULT, KEEP, MESSAGE, WorkerEndpoint, endpoint
from commexp.server.worker_process import WorkerProcess
from commexp.state import load_checked

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
    if links.collective and plan.tolerates_stragglers:
        wanted, workers, method = plan.config.launch, plan.config.workers, plan.algorithm
        side = endpoint(
            links.rank, links.processes, wanted.timeout, workers, method.asynchronous, wanted.port, plan.rejoins
        )
    loop = TrainingLoop(plan, device, run, side)
    if links.worker is not None:  # this process takes the place of one that has died while the run goes on
        follow(loop.setup, links.worker)
        return run
    refusal = "" if links.rank else _cannot_write(run, plan)
    if refusal := links.tell(refusal)[0]:
        raise UserError(refusal)
    if links.rank == 0 and not locked:
        hold.enter_context(run.locked())
        run.tidy()
    if links.first_says(again or not run.finished):
        if side.worker is not None:
            follow(loop.setup, side.worker)
        else:
            if side.server is not None:
                side.server.listen()
            loop.run_to_end()
    return run


def lock_finished(run: Run, hold: ExitStack) -> bool:
    """Locks a finished run, so that no other process runs it again while it is shown, and removes temporary files.
    Returns whether ``hold`` has the lock: not for an unfinished run or a folder that cannot be written."""
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


def follow(setup: ExperimentSetup, endpoint: WorkerEndpoint) -> None:
    """Works until the server says that the run is over. Once there is a first item the run's folder is ready."""
    endpoint.connect()
    with Interrupts():
        item = endpoint.next()
        with setup.run.logging(log, endpoint.world_rank):
            if setup.plan.algorithm.asynchronous:
                work(setup, endpoint, item)
            else:
                answer_calls(setup, endpoint, item)
            endpoint.leave()


def work(setup: ExperimentSetup, endpoint: WorkerEndpoint, item: WorkItem | None) -> None:
    """Of asynchronous methods, one worker."""
    workers, plan, worker = setup.world, setup.plan, endpoint.world_rank - 1
    assert isinstance(workers, WorkerProcess)
    place = setup.run.folder / "checkpoints", worker
    load_worker(*place, plan.identity, partial(workers.load_codec, worker))
    save = partial(save_worker, *place, run=plan.identity)
    workers.work(endpoint, item, setup.guard, plan.config.launch.inject, save)


def answer_calls(setup: ExperimentSetup, endpoint: WorkerEndpoint, item: WorkItem | None) -> None:
    """Of methods with rounds, the workers here: they answer the newest call, and none that a newer one has
    superseded."""
    dtype, counted = getattr(torch, setup.plan.config.dtype), setup.guard.count
    if item is not None:
        load_own(setup, endpoint.world_rank, item.messages_received)
    while item is not None:
        t = item.version
        settle(setup, endpoint.world_rank, item)
        if t == KEEP:
            item = endpoint.next()
            continue
        setup.guard.round = t + 1
        message = setup.algorithm.respond(t, item.body.view(dtype).to(setup.device))
        if not endpoint.superseded(setup.pause(t + 1)):
            fault, bad = setup.guard.fault, setup.guard.count - counted
            kind = MESSAGE if fault is None else FAULT
            body = bundle(pack_frames(message, torch.ones(message.workers))) if fault is None else as_text(fault.text())
            endpoint.send(kind, item, bad=bad, body=body)
            counted += bad
        item = endpoint.next()
    if endpoint.farewell is not None:
        settle(setup, endpoint.world_rank, endpoint.farewell)


def settle(setup: ExperimentSetup, rank: int, item: WorkItem) -> None:
    """What the round before has left stays or goes, as the server says; then it is saved, if the server says so."""
    setup.algorithm.settle(item.messages_received)
    if item.save and setup.algorithm.own is not None:
        state = dict(setup.algorithm.own.state_dict())
        save_worker(setup.run.folder / "checkpoints", rank, state, setup.plan.identity, item.messages_received)


def load_own(setup: ExperimentSetup, rank: int, counted: int) -> None:
    """Goes on from what the workers here have kept, if anything. ``counted``: see Links."""
    own, dim, workers = setup.algorithm.own, setup.problem.dim, len(setup.comm.worker_ids)
    dtype = getattr(torch, setup.plan.config.dtype)
    if own is not None:

        def accept(state: dict[str, torch.Tensor]) -> None:
            state = {name: value.to(setup.device) for name, value in state.items()}
            load_checked(own, state, dim, workers, dtype=dtype)

        load_worker(setup.run.folder / "checkpoints", rank, setup.plan.identity, accept, counted)
