"""What another process than the first does where the server does not wait for it: it works on the newest item."""

from __future__ import annotations

import logging
from functools import partial

import torch

from commexp.algorithms.base import WorkItem
from commexp.comm import bundle, pack_frames
from commexp.experiment.checkpoint import load_worker, save_worker
from commexp.experiment.interrupts import Interrupts
from commexp.experiment.setup import ExperimentSetup
from commexp.server.channel import as_text
from commexp.server.endpoints import FAULT, MESSAGE, WorkerEndpoint
from commexp.server.worker_process import WorkerProcess

log = logging.getLogger("commexp")


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
    workers.work(endpoint, item, setup.checked, plan.config.launch.inject, save)


def answer_calls(setup: ExperimentSetup, endpoint: WorkerEndpoint, item: WorkItem | None) -> None:
    """Of coded methods, the workers here: they answer the newest call, and none that a newer one has superseded."""
    dtype, counted = getattr(torch, setup.plan.config.dtype), setup.checked.count
    while item is not None:
        t = item.version
        setup.checked.round = t + 1
        message = setup.algorithm.respond(t, item.body.view(dtype).to(setup.device))
        if not endpoint.superseded(setup.pause(t + 1)):
            fault, bad = setup.checked.fault, setup.checked.count - counted
            kind = MESSAGE if fault is None else FAULT
            body = bundle(pack_frames(message, torch.ones(message.workers))) if fault is None else as_text(fault.text())
            endpoint.send(kind, item, bad=bad, body=body)
            counted += bad
        item = endpoint.next()
