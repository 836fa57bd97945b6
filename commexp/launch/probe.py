"""What the links between real processes can do, and how long a gradient takes here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from commexp.comm.links import Links, finish
from commexp.config.plan import Plan
from commexp.experiment.execute import folder_of
from commexp.experiment.setup import ExperimentSetup
from commexp.launch.member import joined
from commexp.launch.single import usable
from commexp.ranks import joins
from commexp.seeding import generator

PINGS, WARM = 30, 5  # round trips of a small message, and how many before them are not counted
SMALL, FIRST, LARGEST = 8, 2**16, 2**28  # bytes of a small message, and of the first and the largest large one
LONG, REPEATS = 0.25, 5  # seconds from which on a large message is long enough, and how often it then goes
STEPS, PATIENCE = 15, 4.0  # gradients that are timed, at most, and seconds after which no more are


class Probed(NamedTuple):
    """``bandwidth`` in Mbit/s and ``latency`` in ms, of the slowest link of the ring of processes; None where there is
    one process. ``seconds``: of a worker's gradient, of the slowest process; None where none was measured."""

    bandwidth: float | None = None
    latency: float | None = None
    seconds: float | None = None

    @property
    def words(self) -> list[str]:
        """As overrides."""
        keys = {"network.bandwidth": self.bandwidth, "network.latency": self.latency}
        keys["network.compute.seconds"] = self.seconds
        return [f"{key}={value:.4g}" for key, value in keys.items() if value is not None]


def probe(plan: Plan, gradient: bool = True) -> tuple[Probed, int]:
    """What is measured, equal for all processes, and the rank of this one. ``gradient``: of the plan's problem, as its
    run would compute it here. Raises UserError, and LaunchError where processes do not meet."""
    if not joins():
        device = usable("cpu" if plan.config.launch.device == "auto" else plan.config.launch.device)
        return Probed(seconds=gradient_seconds(plan, device, Links()) if gradient else None), 0
    with joined(plan) as (device, links):
        latency = slowest_ping(links, device)
        bandwidth = slowest_stream(links, device, latency)
        seconds = gradient_seconds(plan, device, links) if gradient else None
        return Probed(8e-6 * bandwidth, 1e3 * latency, seconds), links.rank


def slowest_ping(links: Links, device: torch.device) -> float:
    """Seconds of a small message from one process to the next: half the time of there and back, the median of PINGS;
    the slowest of the neighbours in a ring, one pair after the other."""
    message, found = torch.zeros(SMALL, dtype=torch.uint8, device=device), 0.0
    for first in range(links.processes):
        second = (first + 1) % links.processes
        links.tell("")  # the others wait, so that nothing else is on the links
        if links.rank in (first, second):
            there = {second if links.rank == first else first: message}
            back = dict.fromkeys(there, SMALL)

            def trip(
                there: dict[int, Tensor] = there, back: dict[int, int] = back, leads: bool = links.rank == first
            ) -> None:
                for out in (leads, not leads):
                    finish(links.swap(there if out else {}, {} if out else back, message))

            for _ in range(WARM):
                trip()
            found = max(found, statistics.median(timed(trip, device) for _ in range(PINGS)) / 2)
    return slowest(links, found)


def slowest_stream(links: Links, device: torch.device, latency: float) -> float:
    """Bytes per second of a link that sends and receives at the same time, as in a ring: every process sends a large
    message to the next one; the message is made longer until it takes LONG. The median of REPEATS, each of the slowest
    link; ``latency`` is taken off."""
    following, before = (links.rank + 1) % links.processes, (links.rank - 1) % links.processes

    def stream(size: int) -> float:
        message = torch.zeros(size, dtype=torch.uint8, device=device)
        links.tell("")
        return slowest(links, timed(lambda: finish(links.swap({following: message}, {before: size}, message)), device))

    size = FIRST
    stream(size)  # opens the connections
    while stream(size) < LONG and size < LARGEST:
        size *= 4
    return size / max(1e-9, statistics.median(stream(size) for _ in range(REPEATS)) - latency)


def gradient_seconds(plan: Plan, device: torch.device, links: Links) -> float:
    """Seconds of one worker's gradient of a batch where all processes compute at the same time: a median after warm-up,
    of the slowest process. With several workers in a process, their share of its time."""
    problem = ExperimentSetup(plan, device, folder_of(plan), links).problem
    workers = plan.config.workers // links.processes
    x = problem.init(generator(plan.config.seed, "start")).expand(workers, -1)
    links.tell("")
    took: list[float] = []
    while len(took) < STEPS + 2 and (len(took) < 5 or sum(took) < PATIENCE):
        batch = problem.batch(len(took))
        took.append(timed(lambda batch=batch: problem.loss_and_grad(x, batch), device))  # type: ignore[misc]
    return slowest(links, statistics.median(took[2:]) / workers)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds until it is done, on a GPU, too."""
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def slowest(links: Links, seconds: float) -> float:
    """The largest of all processes' values."""
    return int(links.counts(torch.tensor([round(1e9 * seconds)])).max()) / 1e9
