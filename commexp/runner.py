"""Carries a plan out; what was interrupted goes on, what is finished is not run again."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch

from commexp.comm import Coordinator, Hub, Links, Processes, Remote, Spoke
from commexp.config import Plan
from commexp.following import follow
from commexp.refusals import UserError
from commexp.rundir import Run
from commexp.running import Running


def execute(plan: Plan, device: torch.device, links: Links | None = None) -> Run:
    """Runs the plan to its end, or shows that it has been run. All of its processes call this together; the first one
    writes. Raises UserError before anything is written."""
    links, run = links or Links(), folder_of(plan)
    if links.first_says(run.finished and not plan.config.rerun):
        return run
    side = links
    if isinstance(links, Processes) and plan.goes_on:
        side = apart(links, plan.algorithm.asynchronous, plan.config.launch.port)
    running = Running(plan, device, run, side)
    if isinstance(links, Spoke):  # one that comes back, where all is settled
        follow(running, links)
        return run
    refusal = "" if links.rank else _cannot_write(run, plan)
    if refusal := links.tell(refusal)[0]:
        raise UserError(refusal)
    with run.locked() if links.rank == 0 else nullcontext():
        if links.first_says(not run.finished or plan.config.rerun):
            if isinstance(side, Remote | Spoke):
                follow(running, side)
            else:
                if isinstance(side, Coordinator | Hub):
                    side.listen()
                running.run_to_end()
    return run


def apart(links: Processes, asynchronous: bool, port: int = 0) -> Links:
    """This process's side where processes need not wait for each other; the server's listens at ``port``."""
    if asynchronous:
        return Spoke(links.rank - 1, links.timeout) if links.rank else Hub(links, port)
    return Remote(links) if links.rank else Coordinator(links, port)


def folder_of(plan: Plan) -> Run:
    return Run(Path(plan.config.outputs) / "runs" / plan.name)


def _cannot_write(run: Run, plan: Plan) -> str:
    try:
        run.make_folder()
    except OSError as error:
        return f"outputs={plan.config.outputs}: cannot be written ({error.strerror}); give a folder that can"
    return ""
