"""Chooses where the workers of an asynchronous method are: on a virtual clock in this process, or in processes."""

from __future__ import annotations

from collections.abc import Callable

from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.algorithms.base import AsyncWorkers
from commexp.comm import Links
from commexp.config.plan import Plan
from commexp.network import Coding, EventClock, PeerClock, WallClock
from commexp.problems import PerWorkerProblem
from commexp.server.over_processes import WorkersOverProcesses
from commexp.server.worker_process import WorkerProcess
from commexp.server.workers import SimulatedWorkers


def place_workers(
    plan: Plan,
    problem: PerWorkerProblem,
    links: Links,
    report: Callable[[int, str], None],
    stops: Callable[[], bool],
    coding: Coding,
) -> tuple[EventClock | WallClock, AsyncWorkers]:
    """``report``, ``stops``: see WorkersOverProcesses. ``coding``: of a message, virtually. Raises ValueError
    for a network or a compressor that does not fit."""
    real = links.server is not None or links.worker is not None
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
        user = next(name for name, uses in users.items() if uses)
        raise ValueError(f"network.compute.seconds=0: {user} needs to know what a gradient takes; give such as 0.01")
    if plan.compressor.phases > 1:
        raise ValueError(f"compress: {plan.compressor.name} takes a sum over all workers; give none, topk, qsgd, ...")
    if links.server is not None:
        wall = WallClock(plan.config.workers)
        return wall, WorkersOverProcesses(plan, problem, links.server, wall, report, stops)
    kind = PeerClock if method.decentralised else EventClock
    clock = kind(plan.network, plan.straggler, plan.config.workers, plan.config.seed, coding)
    return clock, WorkerProcess(plan, problem, clock) if real else SimulatedWorkers(plan, problem, clock)
