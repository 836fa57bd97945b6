"""What workers have, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.compressors import CodecContext, Compressor
from commexp.config.plan import Plan
from commexp.network import EventClock, WallClock
from commexp.problems import PerWorkerProblem


class Apart:
    """What all of them have: see Asynchrony."""

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

    def batches(self, worker: int) -> float:
        return self.samples[worker] / self.problem.problems[worker].samples_per_step

    def fit(self, worker: int, seconds: float) -> int:
        return max(1, int(seconds / (self.seconds * self.factors[worker])))
