"""What a plan amounts to: problem, exchange, compressor and algorithm put together, and what they will cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from commexp.algorithms import AlgorithmContext, Redundancy
from commexp.comm import Links, bucket_ends, bucket_size
from commexp.compressors import CodecContext
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.experiment.build import check_gossiped, keyed, make_held, make_mixer
from commexp.experiment.record import RoundPlan, RunRecord
from commexp.network import Closing, VirtualClock
from commexp.problems import GradientOptions, NonFiniteError, NonFiniteGuard, PerWorkerProblem, build_problem
from commexp.run_folder import Run
from commexp.seeding import generator
from commexp.server.calling import make_communicator
from commexp.server.place_workers import place_workers

if TYPE_CHECKING:
    from commexp.allocations import Assignment


class ExperimentSetup:
    """A run's parts, put together. Raises UserError where they do not fit."""

    def __init__(self, plan: Plan, device: torch.device, run: Run, links: Links | None = None) -> None:
        self.plan, self.run, self.device, config = plan, run, device, plan.config
        self.books = RunRecord(run, plan.identity)
        self.links = links or Links()
        try:
            mixer = make_mixer(plan) if plan.algorithm.decentralised else None
            deterministic = config.comm.deterministic
            self.comm = make_communicator(
                self.count_nonfinite,
                self.links,
                workers=config.workers,
                ledger=self.books.ledger,
                exchange=plan.exchange,
                deterministic=deterministic,
                ask=self.concerns,
                mixer=mixer,
            )
            self.held = make_held(plan) if plan.algorithm.coded else None
            rows: Sequence[int] = (
                self.comm.worker_ids if self.held is None else self.held.subsets_of(self.comm.worker_ids)
            )
            self.parts = config.workers if self.held is None else self.held.subsets  # of the data
            self.problem = build_problem(
                plan.dataset,
                plan.partition,
                plan.model,
                self.parts,
                rows,
                config.batch_size,
                config.seed,
                device,
                getattr(torch, config.dtype),
                config.comm.deterministic,
                GradientOptions(**vars(config.speed)),
                plan.prox,
                plan.algorithm.asynchronous,
                getattr(plan.algorithm, "shares", "equal") == "samples",
            )
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        ids = self.comm.worker_ids
        plan.compressor.setup(CodecContext(config.seed, ids, self.problem.shapes))
        start = self.problem.init(generator(config.seed, "start"))
        itemsize = start.element_size()
        if plan.algorithm.decentralised:
            check_gossiped(plan, self.problem.dim)
        try:
            self.payload = plan.compressor.payload(self.problem.dim, itemsize)
            self.choice = self.comm.choose(plan.compressor, self.problem.dim, itemsize)
        except ValueError as error:
            raise UserError(f"compress.{error}") from error
        self.dense_payload = self.problem.dim * itemsize
        self.books.here = (
            len(self.comm.worker_ids) if self.held is None else self.held.subsets_per_process(self.links.processes)
        )
        rows = self.problem.ids if isinstance(self.problem, PerWorkerProblem) else rows  # whose gradients they are
        self.checked = NonFiniteGuard(
            self.problem, rows, config.on_nonfinite, "worker" if self.held is None else "subset"
        )
        self.algorithm = plan.algorithm
        steps = config.steps or config.rounds * self.algorithm.tau  # local steps of a worker in the whole run
        lengths = self.algorithm.lengths(steps)
        try:
            context = AlgorithmContext(self.checked, self.comm, plan.compressor, steps, start, config.debug)
            if isinstance(self.problem, PerWorkerProblem):
                told = self.count_nonfinite, self.stops
                self.books.clock, self.world = place_workers(plan, self.problem, self.links, *told)
                context.async_workers = self.world
            else:
                clock = self.books.clock = self._clock()
                context.redundancy = None if self.held is None else self._redundancy(self.held, rows, clock)
            self.algorithm.setup(context)
        except ValueError as error:
            raise UserError(str(error)) from error
        batches, gradients = self.algorithm.batches_of(lengths), self.algorithm.gradients_of(lengths)
        self.books.planned = RoundPlan(
            [0, *accumulate(lengths)], [0.0, *accumulate(batches)], [0.0, *accumulate(gradients)]
        )

    def _clock(self) -> VirtualClock:
        """Raises ValueError where it would not know who answers."""
        plan, held, mixer = self.plan, self.held, self.comm.mixer
        network, workers = plan.network, plan.config.workers
        ends = mixer.mean_links[:2] if mixer is not None and mixer.is_small else None
        if held is None:
            buckets = bucket_ends(self.problem.dim, self.bucket)
            return VirtualClock(network, plan.straggler, workers, plan.config.seed, ends, bucket_ends=buckets)
        closes = self.algorithm.closing_rule(held)
        if closes is not None and closes != (None, None) and network.compute.kind == "measured":
            raise ValueError(
                "network.compute.kind=measured: who answers in time would not be the same twice; give constant, "
                "lognormal, ... and network.compute.seconds"
            )
        closing = None if closes is None else Closing(*closes)
        return VirtualClock(network, plan.straggler, workers, plan.config.seed, None, held.loads, closing)

    @property
    def bucket(self) -> int | None:
        """Entries of a gradient that go ahead of the rest together where there is one worker a process, or None."""
        if not self.algorithm.overlaps_gradient or self.plan.config.on_nonfinite != "stop":
            return None
        return bucket_size(self.plan.compressor, self.choice.exchange, self.comm.deterministic)

    def _redundancy(self, held: Assignment, rows: Sequence[int], clock: VirtualClock) -> Redundancy:
        plan = self.plan
        workers, seed = plan.config.workers, plan.config.seed

        def code() -> np.ndarray:
            try:
                return plan.allocation.code(workers, seed)
            except ValueError as error:
                raise ValueError(keyed(str(error), "allocation", plan.allocation)) from error

        return Redundancy(
            held,
            rows,
            plan.straggler.share(workers),
            lambda t: clock.answered(t + 1, self.algorithm.gradients),
            code,
        )

    def pause(self, number: int) -> float:
        """For how many seconds this process is to sleep in round ``number`` = 1, 2, ..., as long as the slowest of its
        workers computes; where it is known who will answer, the slowest of those, if there are any. The server of
        asynchronous methods does not sleep."""
        clock, own = self.books.clock, list(self.comm.worker_ids)
        if not self.plan.config.launch.inject or not isinstance(clock, VirtualClock):
            return 0.0
        gradients = self.books.planned.gradients
        each = gradients[number] - gradients[number - 1]
        seconds = clock.computing(number, each)[own]
        known = clock.closing == Closing() or self.comm.deterministic
        counted = clock.answered(number, each)[own]
        return float(seconds[counted].max() if known and counted.any() else seconds.max())

    def count_nonfinite(self, bad: int, fault: str) -> None:
        """``bad`` gradients of another process were not finite; ``fault``: a text about the first, if the run stops."""
        self.checked.count += bad
        if fault:
            self.checked.fault = NonFiniteError.read(fault)

    def stops(self) -> bool:
        """Whether there is a wish to stop."""
        return False

    def concerns(self) -> tuple[int, ...]:
        """What this process has to tell the others, see comm.Agreement."""
        return ()
