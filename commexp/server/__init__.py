"""Where the workers are that wait for nobody: on a clock of events, or in a process each with a server in another."""

from __future__ import annotations

from collections.abc import Callable

from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.algorithms.base import Asynchrony
from commexp.comm import Links
from commexp.config.plan import Plan
from commexp.network import EventClock, WallClock
from commexp.problems import PerWorkerProblem
from commexp.server.hub import Hub
from commexp.server.server import AtServer
from commexp.server.simulated import Simulated
from commexp.server.spoke import Spoke
from commexp.server.worker import AtWorker, as_text


def asynchrony(
    plan: Plan, problem: PerWorkerProblem, links: Links, heard: Callable[[int, str], None], stops: Callable[[], bool]
) -> tuple[EventClock | WallClock, Asynchrony]:
    """``heard``: told what others say of gradients that are not finite. ``stops``: whether the run is to stop. Raises
    ValueError for a network or a compressor that does not fit."""
    real = isinstance(links, Hub | Spoke)
    method, compute, name = plan.algorithm, plan.network.compute, plan.names["algo"]
    assert isinstance(method, Asynchronous)
    if not real and plan.config.launch.inject:
        raise ValueError("launch.inject=true: there is no process to sleep; give launch=torchrun, or false")
    if not real and compute.kind == "measured":
        raise ValueError(
            "network.compute.kind=measured: whose message comes first would not be the same twice; give constant, "
            "lognormal, ..."
        )
    users = {
        f"algo={name} on the virtual clock": not real,
        "launch.inject=true": plan.config.launch.inject,
        f"algo.slice={method.slice}": method.slice is not None,
    }
    if any(users.values()) and not compute.seconds and compute.kind != "trace":
        who = next(name for name, uses in users.items() if uses)
        raise ValueError(f"network.compute.seconds=0: {who} needs to know what a gradient takes; give such as 0.01")
    if plan.compressor.phases > 1:
        raise ValueError(f"compress: {plan.compressor.name} takes a sum over all workers; give none, topk, qsgd, ...")
    if isinstance(links, Hub):
        wall = WallClock(plan.config.workers)
        return wall, AtServer(plan, problem, links, wall, heard, stops)
    clock = EventClock(plan.network, plan.straggler, plan.config.workers, plan.config.seed)
    return clock, AtWorker(plan, problem, clock) if real else Simulated(plan, problem, clock)


__all__ = ["AtWorker", "as_text", "asynchrony"]
