"""What a plan amounts to: problem, exchange, compressor and algorithm put together, and what they will cost."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from commexp.algorithms import Context, Redundancy
from commexp.asynchrony import asynchrony
from commexp.books import Books, Planned
from commexp.comm import Communicator, Coordinator, Hub, Links, Served, choose, stretch_ends, stretch_of
from commexp.components import short
from commexp.compressors import Setup
from commexp.config import Plan
from commexp.network import Closing, VirtualClock, WallClock
from commexp.problems import Alternating, Finite, NonFiniteError, Speed, build_problem
from commexp.provenance import describe
from commexp.refusals import UserError
from commexp.rundir import Run
from commexp.seeding import generator
from commexp.topologies import Mixer

if TYPE_CHECKING:
    from commexp.allocations import Held

log = logging.getLogger("commexp")


class Trial:
    """A run's parts, put together. Raises UserError where they do not fit."""

    def __init__(self, plan: Plan, device: torch.device, run: Run, links: Links | None = None) -> None:
        self.plan, self.run, self.device, config = plan, run, device, plan.config
        self.books = Books(run)
        self.links = links or Links()
        try:
            mixer = make_mixer(plan) if plan.algorithm.decentralised else None
            deterministic = config.comm.deterministic
            given = config.workers, self.books.ledger, plan.exchange, deterministic, self.links, self.concerns, mixer
            self.comm = (
                Served(*given, heard=self.heard) if isinstance(self.links, Coordinator) else Communicator(*given)
            )
            self.held = make_held(plan) if plan.algorithm.coded else None
            rows: Sequence[int] = self.comm.worker_ids if self.held is None else self.held.here(self.comm.worker_ids)
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
                Speed(**vars(config.speed)),
                plan.prox,
                plan.algorithm.asynchronous,
            )
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        ids = self.comm.worker_ids
        plan.compressor.setup(Setup(config.seed, ids, self.problem.shapes))
        start = self.problem.init(generator(config.seed, "start"))
        itemsize = start.element_size()
        if plan.algorithm.decentralised:
            check_gossiped(plan, self.problem.dim)
        try:
            self.payload = plan.compressor.payload(self.problem.dim, itemsize)
            self.choice = choose(plan.compressor, plan.exchange, config.workers, self.problem.dim, itemsize)
        except ValueError as error:
            raise UserError(f"compress.{error}") from error
        self.dense_payload = self.problem.dim * itemsize
        self.books.here = len(self.comm.worker_ids) if self.held is None else self.held.computed(self.links.processes)
        rows = self.problem.ids if isinstance(self.problem, Alternating) else rows  # whose gradients they are
        self.checked = Finite(self.problem, rows, config.on_nonfinite, "worker" if self.held is None else "subset")
        self.algorithm = plan.algorithm
        steps = config.steps or config.rounds * self.algorithm.tau  # local steps of a worker in the whole run
        lengths = self.algorithm.lengths(steps)
        try:
            context = Context(self.checked, self.comm, plan.compressor, steps, start, config.debug)
            if isinstance(self.problem, Alternating):
                self.books.clock, self.world = asynchrony(plan, self.problem, self.links, self.heard, self.stops)
                context.asynchrony = self.world
            else:
                clock = self.books.clock = self._clock()
                context.redundancy = None if self.held is None else self._redundancy(self.held, rows, clock)
            self.algorithm.setup(context)
        except ValueError as error:
            raise UserError(str(error)) from error
        batches, gradients = self.algorithm.batches_of(lengths), self.algorithm.gradients_of(lengths)
        self.books.planned = Planned(
            [0, *accumulate(lengths)], [0.0, *accumulate(batches)], [0.0, *accumulate(gradients)]
        )

    def _clock(self) -> VirtualClock:
        """Raises ValueError where it would not know who answers."""
        plan, held, mixer = self.plan, self.held, self.comm.mixer
        network, workers = plan.network, plan.config.workers
        ends = mixer.mean_links[:2] if mixer is not None and mixer.is_small else None
        if held is None:
            stretches = stretch_ends(self.problem.dim, self.stretch)
            return VirtualClock(network, plan.straggler, workers, plan.config.seed, ends, stretches=stretches)
        closes = self.algorithm.closes(held)
        if closes is not None and closes != (None, None) and network.compute.kind == "measured":
            raise ValueError(
                "network.compute.kind=measured: who answers in time would not be the same twice; give constant, "
                "lognormal, ... and network.compute.seconds"
            )
        closing = None if closes is None else Closing(*closes)
        return VirtualClock(network, plan.straggler, workers, plan.config.seed, None, held.loads, closing)

    @property
    def stretch(self) -> int | None:
        """Entries of a gradient that go ahead of the rest together where there is one worker a process, or None."""
        if not self.algorithm.streams or self.plan.config.on_nonfinite != "stop":
            return None
        return stretch_of(self.plan.compressor, self.comm.exchange, self.comm.deterministic)

    def _redundancy(self, held: Held, rows: Sequence[int], clock: VirtualClock) -> Redundancy:
        plan = self.plan
        workers, seed = plan.config.workers, plan.config.seed

        def code() -> np.ndarray:
            try:
                return plan.allocation.code(workers, seed)
            except ValueError as error:
                raise ValueError(_keyed(str(error), "allocation", plan.allocation)) from error

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

    def heard(self, bad: int, fault: str) -> None:
        """What another process says of gradients that are not finite."""
        self.checked.count += bad
        if fault:
            self.checked.fault = NonFiniteError.read(fault)

    def stops(self) -> bool:
        """Whether there is a wish to stop."""
        return False

    def concerns(self) -> tuple[int, ...]:
        """What this process has to tell the others, see comm.Agreement."""
        return ()

    def costs(self, nonfinite: int) -> dict[str, Any]:
        """What summary.json says; the baseline sends dense messages after every local step; over a server they come
        down as well as go up."""
        ways = 2 if self.choice.exchange == "server" else 1
        done = self.algorithm.steps_done()
        steps = self.plan.config.workers * self.books.steps if done is None else done
        return {
            **self.books.summary(ways * steps * self.dense_payload),
            "exchange": ", ".join(dict.fromkeys(e.exchange for e in self.books.ledger.entries)),
            **self.graph(),
            **self.redundancy(),
            "payload_bytes": self.payload,
            "parameters": self.problem.dim,
            "nonfinite_gradients": nonfinite,
        }

    def graph(self) -> dict[str, Any]:
        """Of the topology, where there is one."""
        mixer = self.comm.mixer
        if mixer is None:
            return {}
        return {
            "links": sum(len(m.edges()[0]) for m in mixer.mixings) / len(mixer.mixings) / 2,
            "second_singular_value": mixer.second_singular_value,
            "spectral_gap": 1 - mixer.second_singular_value,
            "mixings": mixer.rounds,
            "contraction": mixer.contraction,
        }

    def redundancy(self) -> dict[str, Any]:
        """Of the allocation, where there is one."""
        held = self.held
        if held is None:
            return {}
        return {
            "subsets": held.subsets,
            "copies": float(held.copies.mean()),
            "largest_load": int(held.loads.max()),
            "off_balance": held.balance.largest,
            "off_balance_rms": held.balance.rms,
        }

    def about(self) -> dict[str, Any]:
        config = self.plan.config
        where = describe(self.device)
        processes = 1 + self.links.workers if isinstance(self.links, Hub) else self.links.processes
        sizes: dict[str, Any] = {"clock": "wall"} if isinstance(self.books.clock, WallClock) else {}
        sizes |= {"parameters": self.problem.dim, "samples": self.problem.samples, "stretch": self.stretch}
        return {"seed": config.seed, "workers": config.workers, "processes": processes, **sizes, **where}

    def say_what_it_costs(self) -> None:
        """Which exchange was chosen where there was a choice, and what is dearer than dense."""
        if self.algorithm.decentralised:
            return
        if self.plan.exchange == "auto" and len(self.choice.costs) > 1:
            log.info("%s", self.choice)
            if self.choice.exchange != next(iter(self.choice.costs)):
                print(f"commexp: note: {self.choice}", file=sys.stderr, flush=True)
        if self.plan.compressor.varies:
            return  # what it will cost is not known before it has been
        dense = 2 * (self.plan.config.workers - 1) * self.dense_payload
        wire = self.choice.costs[self.choice.exchange]
        if self.choice.exchange != "server" and wire > dense:
            n = self.plan.config.workers
            text = (
                f"note: {n} messages of {self.payload:,} bytes by {self.choice.exchange} put {wire / dense:.3g} times "
                f"as much on the links as a dense all-reduce"
            )
            log.warning(text)
            print(f"commexp: {text}", file=sys.stderr)


def make_mixer(plan: Plan) -> Mixer:
    """Raises UserError for a graph that does not fit."""
    try:
        return Mixer(plan.topology, plan.gossip, plan.config.workers, plan.config.seed)
    except ValueError as error:
        raise UserError(_keyed(str(error), "topology", plan.topology)) from error


def make_held(plan: Plan) -> Held:
    """Raises UserError for an allocation that does not fit."""
    try:
        return plan.allocation.allocation(plan.config.workers, plan.config.seed)
    except ValueError as error:
        raise UserError(_keyed(str(error), "allocation", plan.allocation)) from error


def _keyed(text: str, group: str, part: Any) -> str:
    """A part's complaint, with the key that the user knows where it is about one of the part's own fields."""
    own = text.partition("=")[0] in {f.name for f in fields(part)}
    return f"{group}.{text}" if own else text


def check_gossiped(plan: Plan, dim: int) -> None:
    """Raises UserError for a codec whose messages neighbours cannot use: gossip takes what contracts."""
    codec, name = plan.compressor, short(plan.resolved["compress"]["_target_"])
    if codec.phases > 1 or codec.delta(dim) is None:
        why = "its decoding takes a sum over all workers" if codec.phases > 1 else "it does not contract"
        raise UserError(f"compress={name}: {why}, so it cannot go with gossip; give compress=topk, or sign")
