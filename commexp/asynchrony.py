"""Where the workers are that wait for nobody: on a clock of events, or in a process each with a server in another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from safetensors.torch import load, save
from torch import Tensor

from commexp.algorithms.asynchronous import Asynchronous
from commexp.algorithms.base import Asynchrony, Letter, Order
from commexp.comm import (
    FAULT,
    JOINED,
    LOST,
    MESSAGE,
    Given,
    Hub,
    Links,
    Said,
    Spoke,
    as_bytes,
    pack_frames,
    unpack_frames,
)
from commexp.compressors import Compressor, Setup
from commexp.config import Plan
from commexp.network import EventClock, WallClock
from commexp.problems import Alternating, Finite
from commexp.rundir import Run, write_atomic

LOOK = 0.5  # seconds between two looks at who has been silent for too long


def asynchrony(
    plan: Plan, problem: Alternating, links: Links, heard: Callable[[int, str], None]
) -> tuple[EventClock | WallClock, Asynchrony]:
    """``heard``: told what others say of gradients that are not finite. Raises ValueError for a network or a compressor
    that does not fit."""
    real = isinstance(links, Hub | Spoke)
    method, compute, name = plan.algorithm, plan.network.compute, plan.name.split("-")[0]
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
        return wall, AtServer(plan, problem, links, wall, heard)
    clock = EventClock(plan.network, plan.straggler, plan.config.workers, plan.config.seed)
    return clock, AtWorker(plan, problem, clock) if real else Simulated(plan, problem, clock)


class Apart:
    """What all of them have: see Asynchrony."""

    def __init__(self, plan: Plan, problem: Alternating, clock: EventClock | WallClock) -> None:
        assert isinstance(plan.algorithm, Asynchronous)
        self.method, self.problem, self.clock = plan.algorithm, problem, clock
        self.seconds, self.factors = plan.network.compute.seconds, plan.network.compute.factors(plan.config.workers)
        self.samples: Sequence[int] = problem.own_samples
        self.codecs: Sequence[Compressor] = [deepcopy(plan.compressor) for _ in range(plan.config.workers)]
        for n, codec in enumerate(self.codecs):
            codec.setup(Setup(plan.config.seed, [n], problem.shapes))

    def turn(self, worker: int) -> None:
        self.problem.turn(worker)

    def batches(self, worker: int) -> float:
        return self.samples[worker] / self.problem.problems[worker].samples_per_step

    def fit(self, worker: int, seconds: float) -> int:
        return max(1, int(seconds / (self.seconds * self.factors[worker])))


class Simulated(Apart):
    """All in this process, on a clock of events. A worker's work is done when its message is dealt with."""

    clock: EventClock

    def serve(self, worker: int, order: Order, gradients: float, up: int) -> bool:
        down = order.body.numel() * order.body.element_size() if order.version else 0
        self.clock.serve(worker, gradients, down, up)
        return True

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        return self.clock.arrivals(every)

    def letter(self, worker: int) -> Letter:
        return Letter(self.method.message(worker), self.method.done[worker])


class AtServer(Apart):
    """The server's process. A worker that is silent for launch.timeout while it has an order counts as lost."""

    clock: WallClock

    def __init__(
        self, plan: Plan, problem: Alternating, hub: Hub, clock: WallClock, heard: Callable[[int, str], None]
    ) -> None:
        super().__init__(plan, problem, clock)
        self.hub, self.heard = hub, heard
        self.orders: list[dict[int, Order]] = [{} for _ in self.codecs]  # by version, those that may be worked on
        self.letters: dict[int, Said] = {}
        self.looked, self.alone = time.monotonic(), 0.0  # when it looked around, and for how long nobody has been there

    def serve(self, worker: int, order: Order, gradients: float, up: int) -> bool:
        if worker not in self.hub.there:
            return False
        self.orders[worker][order.version] = order
        self.hub.send(worker, order.version, order.heard, order.done, order.kind, as_bytes(order.body))
        return True

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        """Also none, where a worker says that its gradients were not finite. Raises RuntimeError where nobody has been
        there for launch.timeout."""
        self.letters = {}
        while True:
            said = self.hub.next(LOOK)
            if time.monotonic() - self.looked > LOOK:
                self._look_around()
            if said is None:
                pass
            elif said.kind == JOINED:
                self.orders[said.worker] = {}
                self.clock.came(said.worker)
                self.method.joined(said.worker)
            elif said.kind == LOST:
                self._lose(said.worker)
            elif said.kind == FAULT:
                self.heard(said.bad, bytes(said.body.tolist()).decode())
                return []
            else:
                self.heard(said.bad, "")
                self.clock.heard(said.worker, said.at, said.busy / 1e6, said.skipped)
                self.letters[said.worker] = said
            if self.letters and self.letters.keys() >= set(every) - self.method.away:
                return sorted(self.letters)

    def letter(self, worker: int) -> Letter:
        said, orders = self.letters[worker], self.orders[worker]
        for version in [v for v in orders if v < said.version]:
            del orders[version]
        like = self.codecs[worker].encode(torch.zeros_like(self.method.x)[None])
        message, _ = unpack_frames([said.body.to(self.method.x.device)], like)
        return Letter(message, said.done, orders[said.version] if said.version < max(orders) else None)

    def _look_around(self) -> None:
        """Time in which the server itself did something else does not count."""
        now = time.monotonic()
        waited, self.looked = min(now - self.looked, 2 * LOOK), now
        for n in self.hub.silent(waited):
            self.hub.lose(n)
            self._lose(n)
        self.alone = 0.0 if self.hub.there else self.alone + waited
        if self.alone > self.hub.timeout.total_seconds():
            raise RuntimeError("every worker is lost, and none came back in launch.timeout")

    def _lose(self, worker: int) -> None:
        self.letters.pop(worker, None)
        self.method.lost(worker)


class AtWorker(Apart):
    """A worker's process."""

    clock: EventClock

    def serve(self, worker: int, order: Order, gradients: float, up: int) -> bool:
        return False

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        raise RuntimeError("the server is elsewhere")

    def letter(self, worker: int) -> Letter:
        raise RuntimeError("the server is elsewhere")

    def work(self, spoke: Spoke, given: Given | None, checked: Finite, inject: bool, run: Run) -> None:
        """Works on the newest order, the first of which is ``given``, until it is over. A method whose messages may be
        overwritten does not wait for an answer longer than its own work took, and goes on from what it has. ``inject``:
        every message takes as long as on the virtual clock. What the codec remembers is kept beside the server's
        checkpoints."""
        kept = run.folder / "checkpoints" / f"worker-{spoke.worker}.safetensors"
        method, n, dtype = self.method, spoke.worker, self.method.x.dtype
        codec, cycle, busy = self.codecs[n], 0, 0.0
        if kept.is_file():
            codec.load_state_dict(load(kept.read_bytes()))
        while given is not None:
            begun, counted, cycle = time.monotonic(), checked.count, cycle + 1
            checked.round = given.version + 1
            body = given.body.view(dtype).to(method.x.device)
            method.take(n, Order(body, given.version, given.heard, given.done, given.kind))
            seconds = self.clock.computing(n, cycle, method.gradients_for(n)) if inject else 0.0
            message = method.message(n)
            spoke.sleep(begun + seconds - time.monotonic())
            if spoke.over:
                break
            took = time.monotonic() - begun
            busy += took
            bad, said = checked.count - counted, (given, method.done[n], busy)
            if checked.fault is not None:
                spoke.say(FAULT, *said, bad, as_text(checked.fault.text()))
            else:
                spoke.say(MESSAGE, *said, bad, pack_frames(message, torch.ones(1))[0])
            if given.save and codec.state_dict():
                write_atomic(kept, save({k: v.cpu().contiguous() for k, v in codec.state_dict().items()}))
            given = spoke.next(took) or given if method.overwrites and not spoke.over else spoke.next()
        spoke.end()


def as_text(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
