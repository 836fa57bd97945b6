"""Where the workers of asynchronous methods are: what is common to all places, and the simulated ones."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.algorithms.base import WorkerUpdate, WorkItem
from commexp.compressors import CodecContext, Compressor
from commexp.config.plan import Plan
from commexp.network import EventClock, PeerClock, WallClock
from commexp.problems import PerWorkerProblem


class LocalWorkers:
    """What a process knows of all workers, wherever they are; see algorithms.base.AsyncWorkers."""

    def __init__(self, plan: Plan, problem: PerWorkerProblem, clock: EventClock | WallClock) -> None:
        assert isinstance(plan.algorithm, Asynchronous)
        self.method, self.problem, self.clock = plan.algorithm, problem, clock
        self.seconds, self.factors = plan.network.compute.seconds, plan.network.compute.factors(plan.config.workers)
        self.samples: Sequence[int] = problem.local_sizes
        self.batch_sizes: Sequence[int] = [plan.config.batch_size or size for size in self.samples]
        self.codecs: Sequence[Compressor] = [deepcopy(plan.compressor) for _ in range(plan.config.workers)]
        for n, codec in enumerate(self.codecs):
            codec.setup(CodecContext(plan.config.seed, [n], problem.shapes))

    def select_worker(self, worker: int) -> None:
        self.problem.select_worker(worker)

    def meet(self, worker: int, other: int, size: int) -> None:
        """Takes no time that anybody counts, where time is not virtual."""

    def batches(self, worker: int) -> float:
        return self.samples[worker] / self.problem.problems[worker].samples_per_step

    def gradients_within(self, worker: int, seconds: float) -> int:
        return max(1, int(seconds / (self.seconds * self.factors[worker])))


class SimulatedWorkers(LocalWorkers):
    """All workers are in this process, on a clock of events. A worker does its work when its message is dealt with."""

    clock: EventClock

    def serve(self, worker: int, item: WorkItem, gradients: float, up: int) -> bool:
        down = item.body.numel() * item.body.element_size() if item.version else 0
        self.clock.serve(worker, gradients, down, up)
        return True

    def meet(self, worker: int, other: int, size: int) -> None:
        assert isinstance(self.clock, PeerClock)
        self.clock.meet(worker, other, size)

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        return self.clock.arrivals(every)

    def update(self, worker: int) -> WorkerUpdate:
        return WorkerUpdate(self.method.message(worker), self.method.done[worker])
