"""What another process than the first does where nobody waits for it: it works on what it is told, until it is over."""

from __future__ import annotations

import logging
from functools import partial

import torch

from commexp.comm import bundle, pack_frames
from commexp.experiment.checkpoint import load_worker, save_worker
from commexp.experiment.interrupts import Interrupts
from commexp.experiment.setup import ExperimentSetup
from commexp.server import AtWorker, as_text
from commexp.server.coordinator import Remote
from commexp.server.spoke import Spoke

log = logging.getLogger("commexp")


def follow(trial: ExperimentSetup, links: Remote | Spoke) -> None:
    """Listens, and works; that there is work says that the run's folder is ready."""
    links.listen()
    with Interrupts():
        if isinstance(links, Remote):
            answer_calls(trial, links)
            return
        assert isinstance(trial.world, AtWorker)
        first, plan = links.next(), trial.plan
        place = (trial.run.folder / "checkpoints", links.worker)
        load_worker(*place, plan.identity, partial(trial.world.accept, links.worker))
        with trial.run.logging(log, links.worker + 1):
            save = partial(save_worker, *place, run=plan.identity)
            trial.world.work(links, first, trial.checked, plan.config.launch.inject, save)


def answer_calls(trial: ExperimentSetup, links: Remote) -> None:
    """Of coded methods: works on the newest call, until there are no more."""
    dtype, call = getattr(torch, trial.plan.config.dtype), links.next()
    with trial.run.logging(log, links.rank):
        while call is not None:
            t, body = call
            trial.checked.round, counted = t + 1, trial.checked.count
            message = trial.algorithm.respond(t, body.view(dtype).to(trial.device))
            fault, bad = trial.checked.fault, trial.checked.count - counted
            if links.wait(trial.pause(t + 1)):
                links.answer(t, bad=bad)  # too late: there is a newer one
            elif fault is not None:
                links.answer(t, as_text(fault.text()), bad, True)
            else:
                links.answer(t, bundle(pack_frames(message, torch.ones(message.workers))), bad)
            call = links.next()
