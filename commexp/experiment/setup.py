"""What a plan amounts to in one process: exchange, data, problem, compressor, clock and algorithm, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from commexp.algorithms import AlgorithmContext, Constants, Redundancy
from commexp.comm import ClosingRule, Communicator, Ledger, Links, Members, bucket_ends, bucket_size
from commexp.compressors import CodecContext
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.experiment.coding import coding_of, kept_coding
from commexp.experiment.flops import gradient_flops
from commexp.experiment.record import Clock, RoundPlan, RunRecord
from commexp.network import Closing, Coding, VirtualClock
from commexp.problems import (
    ClippedGradients,
    GradientOptions,
    NonFiniteError,
    NonFiniteGuard,
    PerWorkerProblem,
    Problem,
    ProblemContext,
    SharedGradients,
    SomeWorkers,
    build_problem,
)
from commexp.run_folder import Run
from commexp.seeding import generator
from commexp.server.calling import make_communicator
from commexp.server.place_workers import place_workers
from commexp.topologies import Mixer

if TYPE_CHECKING:
    from commexp.allocations import Assignment


class ExperimentSetup:
    """All parts of a run, as they stand before its first round. Raises UserError where they do not fit together.

    ``comm``: the exchange among the workers. ``assignment``: of coded methods, which worker holds which subset of the
    data. ``shard_count``: how many shards the data are split into, one a worker or one a subset; ``sizes``: of each.
    ``rows``: the workers, or subsets, whose gradients this process computes. ``present``: where a share of the workers
    takes part in a round, the problem of those. ``guard``: ``problem`` with every gradient checked, and
    clipped where config.clip says so.
    ``payload``, ``dense_message``: bytes of a worker's message, and of one that is not compressed; the longest, where
    an algorithm exchanges parts of the model. ``dense_payload``: bytes of the model. ``choice``: the exchange that
    carries messages, and what each would cost. ``clock``: the one that gives ``sim_seconds``. ``world``:
    of asynchronous methods, where the workers are. ``gradient_flops``: see flops.py; None where nobody knows.
    ``constants``, ``step``: of algo.lr=theory, what the step depends on and the step itself, else None.
    ``coding``: of a message, on the virtual clock. ``plan``: with the seconds of a gradient in place of a device.
    ``record``: what the run has measured.
    ``announcements``: what this process tells the others at the end of a round, see comm.Agreement. ``stops``: whether
    the run is to stop.
    """

    def __init__(
        self,
        plan: Plan,
        device: torch.device,
        run: Run,
        links: Links | None = None,
        announcements: Callable[[], Sequence[int]] = tuple,
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        self.plan, self.device, self.run, self.links = plan, device, run, links or Links()
        self.clock: Clock
        self._drawn = 0, 0.0  # rounds, and samples that were drawn in them
        self.algorithm = plan.algorithm
        with user_mistakes():
            self.comm = self._communicator(announcements)
            self.assignment = self._assignment()
            self.problem = self._problem()
        self.gradient_flops = self._gradient_flops()
        compute = plan.network.compute.for_gradient(self.gradient_flops or 0.0)
        self.plan = replace(plan, network=plan.network.with_compute(compute))
        with user_mistakes():
            self.present = None if plan.participation.of_all else SomeWorkers(self.problem, self.rows)
        start = self.problem.init(generator(plan.config.seed, "start"))
        self._set_up_codec(start)
        self.coding = self._coding(start)
        self.guard = self._guard()
        steps = plan.config.steps or self.algorithm.steps_in(plan.config.rounds)
        lengths = self.algorithm.lengths(steps)
        self.delays = self.algorithm.delays_of(lengths)
        self.constants = self._set_step()
        with user_mistakes():
            self._set_up_algorithm(start, steps, stops)
        self.record = RunRecord(run, self.comm, self.clock, self._rounds(lengths), self._hosted(), plan.identity)

    def _communicator(self, announcements: Callable[[], Sequence[int]]) -> Communicator:
        """Raises ValueError for a graph or a number of processes that does not fit the workers."""
        plan, config, mixer = self.plan, self.plan.config, None
        if plan.algorithm.decentralised:
            with keyed("topology", plan.topology):
                mixer = Mixer(plan.topology, plan.gossip, config.workers, config.seed)
        members = Members.of(self.links, config.workers, plan.islands, config.launch.per_worker)
        return make_communicator(
            self.count_nonfinite,
            self.links,
            workers=config.workers,
            members=members,
            ledger=Ledger(plan.islands),
            exchange=plan.exchange,
            deterministic=config.comm.deterministic,
            ask=announcements,
            mixer=mixer,
        )

    def _assignment(self) -> Assignment | None:
        """Raises ValueError for an allocation that does not fit the workers."""
        if not self.algorithm.coded:
            return None
        with keyed("allocation", self.plan.allocation):
            return self.plan.allocation.allocation(self.plan.config.workers, self.plan.config.seed)

    def _problem(self) -> Problem:
        """Loads the data, splits them, and gives the problem of the workers here. Raises ValueError or
        FileNotFoundError where data, model and batch size do not fit together."""
        plan, config, here = self.plan, self.plan.config, self.comm.members.member_ids
        self.shard_count = config.workers if self.assignment is None else self.assignment.subsets
        self.rows: Sequence[int] = here if self.assignment is None else self.assignment.subsets_of(here)
        dtype, options = getattr(torch, config.dtype), {**vars(config.speed), "part": self.comm.members.part}
        if self.algorithm.asynchronous:
            options["workers"] = "loop"
        data = plan.dataset.load(self.shard_count, config.seed, dtype)
        shards = plan.partition.split(data, self.shard_count, config.seed)
        context = ProblemContext(
            shards=shards,
            worker_ids=self.rows,
            batch_size=config.batch_size,
            seed=config.seed,
            device=self.device,
            dtype=dtype,
            deterministic=config.comm.deterministic,
            speed=GradientOptions(**options),
            loss=plan.loss,
            metrics=plan.metrics,
        )
        if getattr(self.algorithm, "shares", "equal") == "samples":
            total = sum(map(len, shards))
            context.weights = [len(rows) / total for rows in shards]
        problem = build_problem(plan.model, data, context, plan.prox)
        self.sizes = list(plan.model.pools(data, shards))
        if config.launch.per_worker > 1 and not problem.divisible:
            raise ValueError(
                f"launch.per_worker={config.launch.per_worker}: a gradient of model={plan.names['model']} cannot be "
                "shared out; give 1, or a torch module as model"
            )
        if config.stop.accuracy is not None and not problem.has_accuracy:
            raise ValueError(
                f"stop.accuracy={config.stop.accuracy}: nothing here has a test accuracy; give stop.loss, stop.bytes "
                "or stop.seconds"
            )
        return PerWorkerProblem.of(problem) if self.algorithm.asynchronous else problem

    def _gradient_flops(self) -> float | None:
        """Raises UserError where a device is to compute what cannot be counted."""
        try:
            return gradient_flops(self.problem)
        except ValueError as error:
            if (flops := self.plan.network.compute.flops) is None:
                return None
            raise UserError(
                f"network.compute.flops={flops}: the operations of this model are not known ({error}); give "
                "network.compute.seconds=0.02 or the like"
            ) from error

    def _set_up_codec(self, start: Tensor) -> None:
        """``start``: x_0 [J]. Raises UserError for a compressor that does not fit J or the exchange."""
        plan, codec, dim, itemsize = self.plan, self.plan.compressor, self.problem.dim, start.element_size()
        ids = self.comm.worker_ids if self.present is None else self.present.ids
        self.codec_context = CodecContext(plan.config.seed, ids, self.problem.shapes)
        codec.setup(self.codec_context)
        if self.algorithm.decentralised:
            check_gossiped(plan, dim)
        with user_mistakes():
            self.exchanged = exchanged = self.algorithm.exchanged(self.problem.shapes, dim)
        with user_mistakes("compress."):
            self.payload, self.dense_message = codec.payload(exchanged, itemsize), exchanged * itemsize
        with user_mistakes("comm."):
            self.choice = self.comm.choose(codec, exchanged, itemsize)
        self.dense_payload = dim * itemsize

    @property
    def coded_bytes(self) -> float:
        """Of the vector of which a message is made; a codec of several phases makes several, which share in it."""
        return self.dense_message / self.plan.compressor.phases

    def _set_step(self) -> Constants | None:
        """Gives the algorithm the learning rate of its theory where the config asks for it; all processes call this
        together. Raises UserError where no step is known."""
        plan, factor, problem = self.plan, self.plan.lr_factor, self.problem
        if factor is None:
            return None
        try:
            L, own, mu = problem.smoothness()
        except ValueError as error:
            raise UserError(
                f"algo.lr=theory: {error}; give a number, or model=linear_regression or logistic_regression"
            ) from error
        codec, dim, mixer = plan.compressor, self.exchanged, self.comm.mixer
        constants = Constants(
            L,
            self.comm.watched(torch.from_numpy(own)).tolist(),
            mu,
            whole=problem.whole_batches,
            delta=codec.delta(dim),
            omega=codec.omega(dim),
            independent=not codec.shared_state,
            size=self.payload / self.dense_message,
            gap=None if mixer is None or not mixer.constant else 1 - mixer.contraction,
            share=plan.participation.count(plan.config.workers) / plan.config.workers,
        )
        with user_mistakes("algo."):
            step = self.algorithm.theoretical_step(constants)
        self.step, self.algorithm.lr = step, factor * step  # type: ignore[attr-defined]
        return constants

    def _coding(self, start: Tensor) -> Coding:
        """What network.compute.coding says; a run that goes on keeps what it has measured."""
        plan = self.plan
        if plan.network.compute.coding == "measured" and not plan.config.rerun and (kept := kept_coding(self.run.meta)):
            return kept
        return coding_of(plan, self.problem, self.dense_message // start.element_size(), self.device)

    def _guard(self) -> NonFiniteGuard:
        whose = self.problem.ids if isinstance(self.problem, PerWorkerProblem) else self.rows
        problem, members = self.problem, self.comm.members
        if self.present is not None:
            problem, whose = self.present, self.present.ids
        if members.part[1] > 1:  # a worker's gradient is checked, and clipped, as a whole
            problem = SharedGradients(problem, self.comm.inside_mean, members.expanded, parts=True)
        owner = "worker" if self.assignment is None else "subset"
        policy, clip = self.plan.config.on_nonfinite, self.plan.config.clip
        if clip is not None:
            return ClippedGradients(problem, whose, policy, owner, clip=clip)
        return NonFiniteGuard(problem, whose, policy, owner)

    def _set_up_algorithm(self, start: Tensor, steps: int, stops: Callable[[], bool]) -> None:
        """``steps``: local steps of a worker in the whole run. Raises ValueError where the algorithm cannot work."""
        plan = self.plan
        context = AlgorithmContext(self.guard, self.comm, plan.compressor, steps, start, plan.config.debug)
        if self.comm.members.each > 1:
            context.problem = SharedGradients(self.guard, self.comm.inside_mean, self.comm.members.expanded)
            context.members_problem = self.guard
        context.codec_context, context.sizes = self.codec_context, self.sizes
        if self.present is not None:
            context.drawn, context.select = self.taking, self.present.select
        if isinstance(self.problem, PerWorkerProblem):
            self.clock, self.world = place_workers(
                plan, self.problem, self.links, self.count_nonfinite, stops, self.coding
            )
            context.async_workers = self.world
        else:
            self.clock = clock = self._virtual_clock()
            if self.assignment is not None:
                context.redundancy = self._redundancy(self.assignment)
            if plan.calls:
                context.on_time = lambda t: clock.answered(t + 1, self._gradients_in(t + 1))
        self.algorithm.setup(context)

    def _virtual_clock(self) -> VirtualClock:
        """Raises ValueError where it would not know who answers."""
        plan, assignment, mixer = self.plan, self.assignment, self.comm.mixer
        network, workers = plan.network, plan.config.workers
        coding = self.coding
        if not plan.calls:
            edges = mixer.mean_links[:2] if mixer is not None and mixer.is_small else None
            buckets = bucket_ends(self.problem.dim, self.bucket)
            return VirtualClock(
                network,
                plan.straggler,
                workers,
                plan.config.seed,
                edges,
                bucket_ends=buckets,
                delays=self.delays,
                islands=plan.islands,
                coding=coding,
            )
        closing_rule = self.algorithm.closing_rule(assignment)
        if closing_rule is not None and closing_rule != ClosingRule() and network.compute.kind == "measured":
            raise ValueError(
                "network.compute.kind=measured: who answers in time would not be the same twice; give constant, "
                "lognormal, ... and network.compute.seconds"
            )
        closing = None if closing_rule is None else Closing(*closing_rule)
        loads = None if assignment is None else assignment.loads
        return VirtualClock(
            network,
            plan.straggler,
            workers,
            plan.config.seed,
            None,
            loads,
            closing,
            coding=coding,
            participation=plan.participation,
        )

    def _redundancy(self, assignment: Assignment) -> Redundancy:
        plan, workers = self.plan, self.plan.config.workers

        def code() -> np.ndarray:
            with keyed("allocation", plan.allocation):
                return plan.allocation.code(workers, plan.config.seed)

        return Redundancy(assignment, self.rows, plan.straggler.share(workers), code)

    def taking(self, t: int) -> np.ndarray:
        """Who takes part in round t = 0, 1, ..., bool [N]."""
        config = self.plan.config
        return self.plan.participation.taking(t + 1, config.workers, config.seed)

    def samples_drawn(self, done: int) -> float:
        """How many samples all workers have drawn in the first ``done`` rounds, of methods that plan their batches."""
        batches, each = self.record.planned.batches, self.problem.samples_per_step
        if self.present is None:
            return batches[done] * each * self.shard_count
        if not self.problem.whole_batches:
            return batches[done] * each * self.plan.participation.count(self.plan.config.workers)
        counted, total = self._drawn if self._drawn[0] <= done else (0, 0.0)
        for t in range(counted, done):
            total += (batches[t + 1] - batches[t]) * float(np.array(self.sizes)[self.taking(t)].sum())
        self._drawn = done, total
        return total

    def _rounds(self, lengths: Sequence[int]) -> RoundPlan:
        """``lengths``: local steps of each round."""
        batches, gradients = self.algorithm.batches_of(lengths), self.algorithm.gradients_of(lengths)
        return RoundPlan(
            [0, *accumulate(lengths)], [0.0, *accumulate(batches)], [0.0, *accumulate(gradients)], self.delays
        )

    def _hosted(self) -> float:
        """How many workers', or subsets', gradients a process computes, on average over processes."""
        if self.present is not None:
            return self.plan.participation.count(self.plan.config.workers) / self.links.processes
        if self.assignment is None:
            return max(1, self.plan.config.workers // self.links.processes)
        return self.assignment.subsets_per_process(self.links.processes)

    @property
    def bucket(self) -> int | None:
        """Entries of a gradient that go ahead of the rest together where there is one worker a process, or None."""
        config = self.plan.config
        if (
            self.comm.members.grouped
            or not self.algorithm.overlaps_gradient
            or config.on_nonfinite != "stop"
            or config.clip is not None
        ):
            return None
        return bucket_size(self.plan.compressor, self.choice.exchange, self.comm.deterministic)

    def _gradients_in(self, number: int) -> float:
        """How many gradients of a batch a worker computes in round ``number`` = 1, 2, ..."""
        gradients = self.record.planned.gradients
        return gradients[number] - gradients[number - 1]

    def pause(self, number: int) -> float:
        """How many seconds this process sleeps in round ``number`` = 1, 2, ... with launch.inject: as long as the
        slowest of its workers computes; where it is known who will answer, the slowest of those, if there are any. The
        server of asynchronous methods does not sleep."""
        clock, own = self.clock, list(self.comm.members.member_ids)
        if not self.plan.config.launch.inject or not isinstance(clock, VirtualClock):
            return 0.0
        each = self._gradients_in(number)
        seconds = clock.computing(number, each)[own]
        known = clock.closing in (None, Closing()) or self.comm.deterministic
        counted = (clock.answered(number, each) if known else clock.taking(number))[own]
        if not clock.participation.of_all:
            return float(seconds[counted].max(initial=0.0))
        return float(seconds[counted].max() if known and counted.any() else seconds.max())

    def count_nonfinite(self, bad: int, fault: str) -> None:
        """Adds ``bad`` gradients of another process that were not finite; ``fault``: the first, as text, if it ends
        the run."""
        self.guard.count += bad
        if fault:
            self.guard.fault = NonFiniteError.read(fault)


@contextmanager
def user_mistakes(prefix: str = "") -> Iterator[None]:
    """What a part refuses, and a file that is not there, is a mistake of the user's."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"{prefix}{error}") from error


@contextmanager
def keyed(group: str, part: Any) -> Iterator[None]:
    """Puts the name of its config group before what a part says of one of its own fields."""
    try:
        yield
    except ValueError as error:
        own = str(error).partition("=")[0] in {f.name for f in fields(part)}
        raise ValueError(f"{group}.{error}" if own else str(error)) from error


def check_gossiped(plan: Plan, dim: int) -> None:
    """Raises UserError for a codec whose messages neighbours cannot use. Gossip of differences that the algorithm keeps
    takes what contracts."""
    codec, name = plan.compressor, plan.names["compress"]
    if codec.phases > 1 or (plan.algorithm.keeps_residual and codec.delta(dim) is None):
        why = "its decoding takes a sum over all workers" if codec.phases > 1 else "it does not contract"
        raise UserError(f"compress={name}: {why}, so it cannot go with gossip; give compress=topk, or sign")
