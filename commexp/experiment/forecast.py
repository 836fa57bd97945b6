"""What a run would send and how long it would take, without training.

A method says what its workers send (``Algorithm.sends``), how many gradients they compute in a round and for how long
an exchange may travel; a codec declares the size of its messages; the exchange is chosen, and the virtual clock goes,
as in a run. A method's rounds repeat themselves, so that each kind of round is timed once.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from commexp.algorithms import AlgorithmContext
from commexp.algorithms.base import Sent
from commexp.comm import SERVER, Communicator, Entry, Ledger, bucket_ends, bucket_size, choose
from commexp.comm.exchanges import Aggregation, Exchange
from commexp.comm.exchanges.broadcast import Broadcast
from commexp.compressors import CodecContext, Compressor, NoCompression
from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.experiment.coding import coding_of
from commexp.experiment.setup import keyed, user_mistakes
from commexp.network import NO_CODING, Network, NoStragglers, VirtualClock
from commexp.problems import Problem
from commexp.topologies import Mixer

DRAWN = 10**4  # rounds of which it is drawn who takes part; the others are taken to be like these
DRAWS = 32  # of a round's computing times, where the network draws them
LEAST, MOST = 1e-2, 1e8  # Mbit/s between which a bandwidth is looked for


@dataclass(frozen=True)
class Workload:
    """Of what gradients are computed. ``dim``: J, the number of parameters. ``flops``: floating-point operations of a
    worker's gradient of a batch; 0 where they are not known. ``samples_per_step``: in a worker's batch. ``samples``: in
    the whole training set. ``shapes``: of the model's tensors, in order; empty where they are not known. ``problem``:
    what is known more exactly, of a config."""

    dim: int
    flops: float
    samples_per_step: float
    samples: int
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    problem: Problem | None = None

    @classmethod
    def of_parameters(cls, parameters: int, tokens: float, batch: int) -> Workload:
        """A model of which only the number of parameters P is known, and that sees tokens, each of them a sample: a
        gradient of a batch of B tokens takes 6 P B operations.

        Source: Kaplan et al., arXiv 2001.08361, section 2.1: 2 P operations a token forward and 4 P backward, attention
        scores left out.
        """
        return cls(parameters, 6.0 * parameters * batch, batch, max(1, round(tokens)))

    @classmethod
    def of(cls, problem: Problem, flops: float | None) -> Workload:
        return cls(problem.dim, flops or 0.0, problem.samples_per_step, problem.samples, problem.shapes, problem)

    def fresh_samples(self, size: int) -> float:
        """As Problem.fresh_samples."""
        return float(size)

    def common_samples(self) -> float:
        """As Problem.common_samples."""
        return self.samples_per_step


class PlannedRound(NamedTuple):
    """``gradients`` that a worker computes, how many of the next round while the exchange travels (``delay``), which
    round of the method's cycle it is (``place``), and whether something that the round before it has sent comes down
    (``follows``) and whether what it sends comes down in its own time (``closes``). ``called``: where a server calls
    some of the workers, how many of them are not worker 0, with which it lives."""

    gradients: float
    delay: float
    place: int
    follows: bool
    closes: bool
    called: int | None = None


class Forecast:
    """A plan's run: what a worker sends and how long it takes on any network, for ``steps`` local steps.

    ``work``: what a gradient takes. ``rounds``: how often each kind of round comes after which other (None: whatever
    comes before). ``network``: the plan's, with seconds of a gradient. ``estimates``: what of the numbers is no more
    than an estimate, and why. Raises UserError for a plan that cannot be carried out, and for a method whose rounds
    depend on who comes first.
    """

    def __init__(self, plan: Plan, work: Workload, steps: int | None = None) -> None:
        self.plan, self.work = plan, work
        name, method = plan.names["algo"], plan.algorithm
        if method.asynchronous or method.coded or method.drops_late:
            raise UserError(
                f"algo={name}: who comes first decides what a round is, which a plan does not know; run it, and price "
                "it elsewhere with commexp-report --replay"
            )
        if plan.islands is not None:
            raise UserError(
                "topology=islands: a plan knows no exchange inside islands; give topology=complete, or run it"
            )
        if plan.network.compute.kind == "measured":
            raise UserError(
                "network.compute.kind=measured: a plan runs nothing; give --probe, or seconds of a gradient"
            )
        if plan.network.changes(plan.config.seed) is not None:
            raise UserError(
                "network.{trace,outage,jitter}: a plan times each kind of round once, and on a network that changes no "
                "two are alike; leave them out, or run it, and price it elsewhere with commexp-report --replay"
            )
        self.steps = steps or plan.config.steps or method.steps_in(plan.config.rounds)
        self.workers = plan.config.workers
        self.itemsize = getattr(torch, plan.config.dtype).itemsize
        self.network = self.computing_here(plan.network)
        with user_mistakes():
            self._set_up()
        self.coding = coding_of(plan, work.problem, self.exchanged, torch.device("cpu"))
        lengths = method.lengths(self.steps)
        self.rounds = self._kinds(method.gradients_of(lengths), method.delays_of(lengths))
        self.traffic: dict[PlannedRound, list[Entry]] = {}
        for before, this in self.rounds:
            self._book(this)
            if before is not None:
                self._book(before._replace(follows=False))
        self.estimates = [*self._estimates()]
        self._ends: tuple[float, float, float] | None = None  # of ``bandwidth_for``, the same for every level

    def computing_here(self, network: Network) -> Network:
        """The same with the seconds that its device takes for a gradient of this workload. Raises UserError for a
        device where the operations are not known."""
        if network.compute.flops is not None and not self.work.flops:
            raise UserError(
                f"network.compute.flops={network.compute.flops}: the operations of this model are not known; give "
                "network.compute.seconds=0.02 or the like"
            )
        return network.with_compute(network.compute.for_gradient(self.work.flops))

    def _set_up(self) -> None:
        """What of a run's set-up its rounds depend on. Raises ValueError."""
        plan, config, method = self.plan, self.plan.config, self.plan.algorithm
        self.mixer: Mixer | None = None
        if method.decentralised:
            with keyed("topology", plan.topology):
                self.mixer = Mixer(plan.topology, plan.gossip, self.workers, config.seed, method.push_sum)
        comm = Communicator(self.workers, Ledger(), plan.exchange, mixer=self.mixer)
        problem = self.work.problem or cast(
            Problem, self.work
        )  # of which a method asks for sizes alone before it begins
        seen = CodecContext(config.seed, range(self.workers), self.work.shapes)
        start = torch.empty(0, dtype=getattr(torch, config.dtype))
        method.context = AlgorithmContext(
            problem, comm, self._codec(self.work.shapes), self.steps, start, codec_context=seen, drawn=self._drawn
        )
        self.exchanged = method.exchanged(self.work.shapes, self.work.dim)
        with user_mistakes("compress."):
            self._codec(self.work.shapes).payload(self.work.dim, self.itemsize)
        bucket = None
        if not method.decentralised:
            with user_mistakes("comm."):
                choice = choose(plan.compressor, plan.exchange, self.workers, self.work.dim, self.itemsize)
            if method.overlaps_gradient and config.on_nonfinite == "stop" and config.clip is None:
                bucket = bucket_size(plan.compressor, choice.exchange, config.comm.deterministic)
        self.buckets = bucket_ends(self.work.dim, bucket)
        mixer = self.mixer
        self.edges = mixer.mean_links[:2] if mixer is not None and mixer.is_small else None

    def _codec(self, shapes: Mapping[str, Sequence[int]]) -> Compressor:
        """A copy of the compressor for vectors made up of such tensors."""
        codec = copy.deepcopy(self.plan.compressor)
        codec.setup(CodecContext(self.plan.config.seed, range(self.workers), shapes))
        return codec

    def _kinds(
        self, gradients: Sequence[float], delays: Sequence[float]
    ) -> Counter[tuple[PlannedRound | None, PlannedRound]]:
        method, last = self.plan.algorithm, len(gradients) - 1
        travels, begin, cycle = bool(getattr(method, "delay", 0)), method.prelude, method.cycle
        each = [self._sent_in(place) for place in range(min(begin + cycle, last + 1))]
        alike = [(*sent, each[place - 1][1]) for place, sent in enumerate(each)]  # those that book the same
        places = [alike.index(one) for one in alike]
        called = self._called_in(min(DRAWN, last + 1))
        kinds = [
            (
                g,
                d,
                places[t if t < begin else begin + (t - begin) % cycle],
                travels and t > 0,
                not travels or t == last,
                called[t % len(called)],
            )
            for t, (g, d) in enumerate(zip(gradients, delays, strict=True))
        ]
        before = [None, *kinds[:-1]] if travels else [None] * len(kinds)
        return Counter(
            {
                (None if first is None else PlannedRound(*first), PlannedRound(*this)): count
                for (first, this), count in Counter(zip(before, kinds, strict=True)).items()
            }
        )

    def _called_in(self, rounds: int) -> list[int | None]:
        """``called`` of each of the first rounds; None once where all workers take part."""
        if self._drawn is None:
            return [None]
        return [int(self._drawn(t)[1:].sum()) for t in range(rounds)]

    @property
    def _drawn(self) -> Callable[[int], np.ndarray] | None:
        """Who takes part in round t = 0, 1, ..., where not all workers do."""
        participation, seed = self.plan.participation, self.plan.config.seed
        return None if participation.of_all else lambda t: participation.taking(t + 1, self.workers, seed)

    # -- bytes

    def _book(self, this: PlannedRound) -> None:
        """What the ledger would hold of such a round: ``traffic``."""
        up, down = self._sent_in(this.place)
        if this.called is not None:
            self.traffic[this] = self._called(this.place, this.called)
            return
        arrives = self._sent_in((this.place - 1) % self.plan.algorithm.cycle)[1] if this.follows else []
        self.traffic[this] = [*arrives, *up, *(down if this.closes else [])]

    def _called(self, place: int, called: int) -> list[Entry]:
        """The entries of a round in which a server calls so many workers beside worker 0 or in its place: x comes down
        to those that take part, and their messages go up."""
        plan, taking = self.plan, self.plan.participation.count(self.workers)
        sends = plan.algorithm.sends(place, self.work.shapes, self.work.dim, plan.compressor)  # in one message
        up = sum(self._codec(sent.shapes).payload(sent.dim, self.itemsize) for sent in sends)
        down = plan.algorithm.called_with * self.work.dim * self.itemsize
        each = ("down", down), (SERVER.direction, up)
        return [
            Entry(0, SERVER.name, direction, 1 + called, 1, 0.0, taking * size, called * size)
            for direction, size in each
        ]

    def _sent_in(self, place: int) -> tuple[list[Entry], list[Entry]]:
        """The entries of what a round's workers send, and of what comes down to them."""
        up: list[Entry] = []
        down: list[Entry] = []
        plan = self.plan
        for sent in plan.algorithm.sends(place, self.work.shapes, self.work.dim, plan.compressor):
            codec = NoCompression() if sent.whole else self._codec(sent.shapes)
            if sent.exchange is not None and not isinstance(sent.exchange, Aggregation):
                up.append(self._apart(sent, sent.exchange, codec))
                continue
            exchange = sent.exchange or choose(codec, plan.exchange, self.workers, sent.dim, self.itemsize).exchange
            for size in codec.messages(sent.dim, self.itemsize):
                wire = sum(exchange.wire(n, size, self.workers) for n in range(self.workers))
                up.append(self._entry(exchange, exchange.direction, self.workers * size, wire))
                if exchange.comes_down:
                    most = exchange.aggregate_payload(codec, sent.dim, self.itemsize, self.workers)
                    down.append(self._entry(exchange, "down", self.workers * most, (self.workers - 1) * most))
        return up, down

    def _apart(self, sent: Sent, exchange: Exchange, codec: Compressor) -> Entry:
        """Of what is not summed over all workers: from one worker to all, or from neighbour to neighbour."""
        size = codec.payload(sent.dim, self.itemsize)
        if self.mixer is None:
            assert isinstance(exchange, Broadcast)
            return self._entry(exchange, "peers", size, exchange.wire(size, self.workers))
        mixings = self.mixer.rounds if isinstance(codec, NoCompression) else 1
        wire = int(self.mixer.at(1).degrees.sum()) * size * mixings
        return self._entry(exchange, "peers", self.workers * size * mixings, wire, mixings)

    def _entry(self, exchange: Exchange, direction: str, sent: int, wire: int, repeats: int = 1) -> Entry:
        return Entry(0, exchange.name, direction, self.workers, repeats, 0.0, sent, wire)

    def _sum(self, column: str) -> float:
        """Of the ledger, over all rounds."""
        each = {kind: sum(getattr(entry, column) for entry in entries) for kind, entries in self.traffic.items()}
        return float(sum(count * each[this] for (_, this), count in self.rounds.items()))

    @property
    def sent(self) -> float:
        """Bytes that a worker hands to exchanges in the whole run: bytes_sent over the workers."""
        return self._sum("bytes_sent") / self.workers

    @property
    def wire(self) -> float:
        """Bytes of a worker on the links: bytes_wire over the workers."""
        return self._sum("bytes_wire") / self.workers

    # -- time

    def seconds(self, network: Network) -> float:
        """The virtual clock at the end of the run: every kind of round is timed once. Where the network draws at
        random, a kind's seconds are a mean over DRAWS of them."""
        delayed = any(this.delay for _, this in self.rounds)
        clock = self._clock(network, [1.0] if delayed else ())
        return sum(count * self._lasts(clock, *kinds) for kinds, count in self.rounds.items())

    def _lasts(self, clock: VirtualClock, before: PlannedRound | None, this: PlannedRound) -> float:
        """Seconds of a round that comes after another one; ``clock``: of the network."""
        draws, lasted = self._draws(clock.network), 0.0
        pair = [this] if before is None else [before._replace(follows=False), this]
        if any(each.delay for each in pair):
            clock.delays = [each.delay for each in pair] * draws
        for first in range(1, 1 + draws * len(pair), len(pair)):
            clock.times, begun = np.zeros_like(clock.times), 0.0
            for number, each in enumerate(pair, first):
                begun = clock.now
                clock.round(number, each.gradients, self.traffic[each])
            lasted += clock.now - begun
        return lasted / draws

    def _draws(self, network: Network) -> int:
        constant = network.compute.kind == "constant" and isinstance(self.plan.straggler, NoStragglers)
        constant &= self.plan.participation.of_all or not (network.compute.slow or network.links or network.regions)
        return 1 if constant else DRAWS

    def _clock(self, network: Network, delays: Sequence[float] = ()) -> VirtualClock:
        """As ExperimentSetup makes it. Raises UserError for a network that does not fit the workers."""
        plan = self.plan
        with user_mistakes():
            return VirtualClock(
                network,
                plan.straggler,
                self.workers,
                plan.config.seed,
                self.edges,
                bucket_ends=self.buckets,
                delays=delays,
                coding=self.coding,
                participation=plan.participation,
                graphs=() if self.mixer is None else self.mixer.graphs,
            )

    def computing(self) -> float:
        """Seconds in which a worker computes, on average over the workers, each as if it took part in every round.
        Utilisation is their share of ``seconds``: computing / (computing + whatever the worker waits for)."""
        draws, clock = self._draws(self.network), self._clock(self.network)
        gradients: Counter[float] = Counter()
        for (_, this), count in self.rounds.items():
            gradients[this.gradients] += count
        each = {g: np.mean([clock.computing(number, g).mean() for number in range(1, draws + 1)]) for g in gradients}
        return float(sum(count * each[g] for g, count in gradients.items()))

    def exchange_seconds(self, network: Network) -> float:
        """Seconds of a round's exchanges, by themselves; a mean over the rounds."""
        clock, each = self._clock(network), {}
        clock.coding = NO_CODING
        for kind, entries in self.traffic.items():
            clock.times = np.zeros_like(clock.times)
            clock.round(1, 0.0, entries)
            each[kind] = clock.now
        total = sum(count * each[this] for (_, this), count in self.rounds.items())
        return total / sum(self.rounds.values())

    def bandwidth_for(self, level: float, at: Callable[[float], Network]) -> float | None:
        """The least bandwidth in Mbit/s with a utilisation of ``level``; None where none up to MOST has it. ``at``: the
        network of a bandwidth.

        Seconds fall as the bandwidth grows, in a line or, where exchanges are hidden, a chain of lines in 1/bandwidth:
        each step goes where the line through the last two places on either side meets the time that is left.
        """
        fast, slow = 1 / MOST, 1 / LEAST
        if self._ends is None:
            self._ends = self.computing(), self.seconds(at(1 / fast)), self.seconds(at(1 / slow))
        computing, early, late = self._ends
        left = computing / level
        if not left or early > left:
            return None
        if late <= left:
            return LEAST
        for step in range(60):
            place = fast + (slow - fast) * (left - early) / (late - early)
            if step % 3 == 2:
                place = math.sqrt(fast * slow)  # a chain that bends sharply
            reached = self.seconds(at(1 / place))
            if reached <= left:
                fast, early = place, reached
            else:
                slow, late = place, reached
            if slow <= fast * (1 + 1e-9) or left - early <= 1e-9 * left:
                break
        return 1 / fast

    # -- what is no more than an estimate

    def _estimates(self) -> Iterator[str]:
        codec, known = self.plan.compressor, bool(self.work.shapes)
        if codec.variable_size:
            yield "the size of a message depends on the data: this is the most that it can be"
        if (
            self.plan.participation.of_all
            and not codec.sums
            and any(e.direction == "down" for entries in self.traffic.values() for e in entries)
        ):
            yield "the aggregate that comes down is taken to be as long as it can be"
        if not known and self._depends_on_shapes():
            yield "the size of a message depends on the model's tensors, which are not known"
        if not known and getattr(self.plan.algorithm, "fragments", 1) > 1:
            yield "fragments of equal size: the model's blocks are not known"
        if not self.plan.participation.of_all and sum(self.rounds.values()) > DRAWN:
            yield f"worker 0, with which the server lives, takes part as often as in the first {DRAWN} rounds"
        if self._draws(self.network) > 1:
            yield f"computing times are a mean over {DRAWS} drawn rounds"

    def _depends_on_shapes(self) -> bool:
        side = math.isqrt(self.work.dim)
        square: dict[str, Any] = {"matrix": (side, side), "rest": (self.work.dim - side**2,)}
        sizes = {self._codec(shapes).payload(self.work.dim, self.itemsize) for shapes in ({}, square)}
        return len(sizes) > 1
