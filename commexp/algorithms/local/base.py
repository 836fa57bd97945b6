"""The base of methods that take several local steps between exchanges."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Optional

import torch
from torch import Tensor

from commexp.algorithms.base import SHARES, AlgorithmContext, Sent
from commexp.algorithms.gradient.base import row_norms
from commexp.algorithms.local.called import CalledRounds
from commexp.algorithms.local.fragments import ORDERS, Fragment, equal_parts, fragments_of
from commexp.comm import DelayedSum
from commexp.compressors import Compressor

ADDED = {"added": True}  # a field whose default leaves a run's name as it was before the field existed


@dataclass
class LocalMethod(CalledRounds):
    """Every round, every worker n = 1..N takes local steps of its own optimiser from x_n; then one exchange.

    Let s_n be the position of worker n after the pull of the last exchange, before any push, and s_A the average of the
    s_n, which all workers know. The workers send C(x_n - s_n), where C is the compressor with its error feedback:

        x_A = s_A + (1/N) sum_n C(x_n - s_n)

    Without compression x_A is the average of the x_n. With compression x_A differs from that average by e, where
    e <- (1 - pull) e + (what C left out of this round's average): the error does not accumulate as long as the workers
    are pulled towards x_A. Optimiser states are not exchanged.

    The model may be exchanged in ``fragments`` = P parts of whole blocks (see fragments_of for ``fragment_order``), one
    after the other: there are ``tau`` local steps between two exchanges of the same fragment, and tau/P between two
    exchanges, each of about J/P numbers. All of the above then holds for each fragment by itself, with a compressor of
    its own.

    An exchange may travel while the workers compute: its sum arrives after ``delay`` further local steps. With y_n the
    position from which the method lets worker n continue, which depends on the x_n that were sent, it continues from

        x_n <- mix x_n + (1 - mix) y_n              mix = 0 drops what the fragment has moved in the meantime

    In islands of workers (topology=islands) n counts islands: the members of one share x_n. In every local step their
    gradients are averaged inside; or, with ``inside`` = k > 1, they take k local steps each by itself, and then their
    models and the states of their optimisers are averaged, and once more at the end of a round.

    With a ``quorum``, a round closes without the workers that are late; ``grace`` in seconds. With a ``participation``
    below 1 only some workers take part in a round. See CalledRounds for both.

    ``shares``: the weight of worker n in an average, 1/N (equal), or m_n / m for its m_n of all m samples (samples),
    with which F is sum_n (m_n/m) f_n.

    The last exchange of a run is waited for. Source of fragments, delay and mix: Streaming DiLoCo, Douillard et al.,
    arXiv 2501.18512, section 2.

    x_A, the average at the last exchange, before workers are pulled or pushed, is the model that is evaluated, unless
    the method names another one. Diagnostics relative to this x_A: ``consensus``, sum_n ||x_n - x_A||^2 for the x_n
    before the exchange; ``valley_width``, mean_n ||x_n - x_A|| for the x_n after it. Both are 0 before the first round.
    Where a round need not have every worker, the x_n of the others are known to nobody: ``answers``, how many messages
    have counted so far, takes their place.

    Memory of the size of all workers' models is used again: that of the last gradient for the differences, and that of
    the x_n before the exchange, which diagnostics need, for the x_n of the next round.

    Raises ValueError for values out of range, a model of fewer entries than fragments, a delay with a compressor that
    takes two exchanges, or that ends while members are apart, and a quorum with fragments, a delay, a mix, or a method
    whose workers do not share x, which has no weights by samples either.
    """

    state = "average pulled_average travelling compressor=context.compressor codecs sums answers"
    worker_state = "x pulled departed optimizer=update taken"
    uses_departed = False  # whether ``merge`` needs the x_n that were sent
    tau: int = 4
    fragments: int = field(default=1, metadata=ADDED)
    fragment_order: str = field(default="strided", metadata=ADDED)
    delay: int = field(default=0, metadata=ADDED)
    mix: float = field(default=0.0, metadata=ADDED)
    quorum: Optional[int] = field(default=None, metadata=ADDED)  # noqa: UP045  (for OmegaConf)
    grace: float = field(default=0.0, metadata=ADDED)
    inside: int = field(default=1, metadata=ADDED)
    shares: str = field(default="equal", metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau < 1:
            raise ValueError(f"tau={self.tau}: must not be less than 1; give local steps between two exchanges")
        if not 1 <= self.fragments <= max(1, self.tau):
            raise ValueError(
                f"fragments={self.fragments}: all of them are exchanged within tau={self.tau} local steps; give 1 to "
                f"{self.tau}"
            )
        if self.fragment_order not in ORDERS:
            raise ValueError(f"fragment_order={self.fragment_order}: unknown; give {' or '.join(ORDERS)}")
        if not 0 <= self.delay <= self.tau // self.fragments:
            between = self.tau // self.fragments
            raise ValueError(
                f"delay={self.delay}: there are {between} local steps between two exchanges; give 0 to {between}"
            )
        if self.inside < 1:
            raise ValueError(f"inside={self.inside}: must not be less than 1; give local steps between two averages")
        if self.delay % self.inside:
            raise ValueError(
                f"delay={self.delay}: the members of an island are apart until inside={self.inside} steps are over; "
                "give a multiple of inside"
            )
        if not 0 <= self.mix < 1:
            raise ValueError(f"mix={self.mix}: out of range; give a share in [0, 1), 0.5 is usual")
        if self.shares not in SHARES:
            raise ValueError(f"shares={self.shares}: unknown; give {' or '.join(SHARES)}")
        if self.shares != "equal" and not type(self).samples_workers:
            raise ValueError(
                f"shares={self.shares}: {type(self).__name__} moves workers relative to their plain average; give "
                "equal, or algo=localsgd or diloco"
            )
        self.check_quorum()
        self.samples_workers = type(self).samples_workers and self.exchanges_whole
        if self.quorum is not None and not self.exchanges_whole:
            raise ValueError(
                f"quorum={self.quorum}: a worker that is left out continues from the whole x, as soon as the round "
                "closes; give null, or fragments=1, delay=0 and mix=0"
            )

    def setup(self, context: AlgorithmContext) -> None:
        self.context = context
        comm, codec = context.comm, context.compressor
        if self.delay and codec.phases > 1:
            raise ValueError(
                f"algo.delay={self.delay}: {codec.name} takes a second exchange when the first is over; give 0, or "
                "another compressor"
            )
        workers = len(comm.worker_ids)
        self.ends = [0, *accumulate(self.lengths(context.steps))]
        self.parts = fragments_of(context.problem.shapes, len(context.start), self.fragments, self.fragment_order)
        self.codecs: dict[str, Compressor] = {}  # by what is exchanged and the fragment; else the run's own
        if self.fragments > 1:
            self.make_codecs("x")
            self.fragment_dims = {part.dim for part in self.parts}
        self.travelling = 0  # the number of the round, from 1 on, whose exchange is under way; 0: none
        self.sums: dict[str, DelayedSum] = {}  # under way, by what is exchanged
        self.departed: dict[str, Tensor] = {}  # what was sent of the x_n, where ``uses_departed``
        self.x = context.start.repeat(workers, 1)
        self.average = context.start  # x_A
        self.pulled_average = self.average if self.parts[0].whole else self.average.clone()  # s_A
        self.pulled = self.pulled_average.expand(workers, -1)  # s_n
        self.losses = self.x.new_zeros(workers)  # mean over the last round's local steps
        self.before_exchange: Tensor | None = None  # x_n before the last exchange, until the next round
        self.spent: Tensor | None = None  # the last gradient, whose memory may be used
        self.update = self.make_optimizer()
        self.weights = self.x.new_full((workers,), 1.0 / comm.size)
        if self.shares == "samples":
            sizes = torch.tensor(context.sizes, dtype=torch.float64)
            self.weights = (sizes / sizes.sum())[list(comm.worker_ids)].to(self.x)
        self.begin_called()

    def make_codecs(self, name: str) -> None:
        """Makes a compressor for each fragment of what is called ``name``."""
        for i, part in enumerate(self.parts):
            self.codecs[f"{name}{i}"] = self.copied_codec(f"{name}{i}", part.shapes)

    def copied_codec(self, name: str, shapes: Mapping[str, Sequence[int]]) -> Compressor:
        """A copy of the compressor for vectors made up of such tensors, with a state and random draws of its own."""
        codec, known = copy.deepcopy(self.context.compressor), self.context.codec_context
        codec.setup(replace(known, shapes=shapes, purpose=f"{known.purpose}.{name}"))
        return codec

    def codec(self, name: str, t: int) -> Compressor:
        """The compressor of round t's fragment of what is called ``name``."""
        return self.codecs.get(f"{name}{t % self.fragments}", self.context.compressor)

    @property
    def cycle(self) -> int:
        return self.fragments

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        part = fragments_of(shapes, dim, self.fragments, self.fragment_order)[t % self.fragments]
        return [Sent(part.dim, part.shapes)]

    def exchanged(self, shapes: Mapping[str, Sequence[int]], dim: int) -> int:
        return max(part.dim for part in fragments_of(shapes, dim, self.fragments, self.fragment_order))

    # -- rounds

    def periods(self, steps: int) -> list[int]:
        """The local steps between two exchanges of the same fragment, one period after the other, ``steps`` in all."""
        return super().lengths(steps)

    def lengths(self, steps: int) -> list[int]:
        *periods, last = self.periods(steps)
        lengths = [n for period in periods for n in equal_parts(period, self.fragments)]
        left = last
        for n in equal_parts(max(last, self.tau), self.fragments):  # the run may end within it
            if left:
                lengths.append(min(n, left))
                left -= lengths[-1]
        return lengths

    def steps_in(self, rounds: int) -> int:
        whole, rest = divmod(rounds, self.fragments)
        return whole * self.tau + sum(equal_parts(self.tau, self.fragments)[:rest])

    def delays_of(self, lengths: Sequence[int]) -> list[float]:
        return [float(self.gradients * min(self.delay, following)) for following in (*lengths[1:], 0)]

    def take_steps(self, t: int) -> None:
        steps = range(self.ends[t], self.ends[t + 1])
        if self.x is self.pulled:
            memory, self.before_exchange = self.before_exchange, None
            self.x = _copied(self.pulled, memory)
        self.losses = torch.zeros_like(self.losses)
        apart = self.inside > 1 and self.context.comm.members.each > 1
        for i, step in enumerate(steps):
            if self.travelling and i == self.delay:
                self.arrive()
            if apart and i % self.inside == 0:
                self.part_members()
            losses, self.spent = self.gradient(self.x, step)
            self.update_workers(self.spent, step)
            self.losses += losses / len(steps)
            if apart and (i % self.inside == self.inside - 1 or step + 1 == steps.stop):
                self.join_members()
            for under_way in self.sums.values():
                under_way.progress()
        if self.travelling:
            self.arrive()
        self.before_exchange = self.x if self.replaces else _copied(self.x, self.before_exchange)

    def part_members(self) -> None:
        """From here on every member of an island here has an x, and an optimiser, of its own: [W, J]."""
        members = self.context.comm.members
        assert self.context.members_problem is not None
        self.shared_problem, self.context.problem = self.context.problem, self.context.members_problem
        self.x = members.expanded(self.x).clone()
        self.losses = members.expanded(self.losses)
        self.update.buffers = {name: members.expanded(rows).clone() for name, rows in self.update.buffers.items()}

    def join_members(self) -> None:
        """Averages them inside each island."""
        names, states = list(self.update.buffers), list(self.update.buffers.values())
        self.x, self.losses, *means = self.context.comm.inside_mean(self.x, self.losses, *states)
        self.update.buffers = dict(zip(names, means, strict=True))
        self.context.problem, self.spent = self.shared_problem, None

    def round(self, t: int) -> None:
        if self.answers is not None:
            self.called_round(t)
            return
        self.take_steps(t)
        if not self.delay:
            self.exchange(t)
        else:
            assert self.before_exchange is not None
            self.depart(t, self.before_exchange)
            if t + 2 == len(self.ends):
                self.arrive()
        self.spent = None

    @property
    def exchanges_whole(self) -> bool:
        return self.fragments == 1 and not self.delay and not self.mix

    def begin_with(self, workers: int) -> None:
        if self.before_exchange is not None and len(self.before_exchange) != workers:
            self.before_exchange = None
        self.x = self.pulled = self.pulled_average.expand(workers, -1)
        self.losses = self.x.new_zeros(workers)

    @property
    def replaces(self) -> bool:
        """Whether an exchange gives every worker a new x_n, so that none needs to be written over."""
        return self.parts[0].whole and not self.delay and not self.mix

    def part(self, t: int) -> Fragment:
        """The fragment that round t exchanges."""
        return self.parts[t % self.fragments]

    # -- the exchange

    def exchange(self, t: int) -> None:
        """Exchanges round t's fragment, and moves the workers."""
        begin, weights, part = self.context.comm.begin, self.weights, self.part(t)
        differences = self.differences(t)
        sums = {name: begin(self.codec(name, t), weights, d.shape[1]).finish(d) for name, d in differences.items()}
        self.receive(t, sums, part.take(self.x))

    def depart(self, t: int, x: Tensor) -> None:
        """Begins the same exchange; ``x``: the x_n, [W, J]."""
        begin, weights = self.context.comm.begin_delayed, self.weights
        self.sums = {name: begin(self.codec(name, t), weights, d) for name, d in self.differences(t).items()}
        self.departed = {"x": self.part(t).take(x)} if self.uses_departed else {}
        self.travelling = t + 1

    def arrive(self) -> None:
        """Ends it."""
        t, self.travelling = self.travelling - 1, 0
        sums = {name: under_way.finish() for name, under_way in self.sums.items()}
        departed = self.departed.get("x", self.x)
        self.sums, self.departed = {}, {}
        self.receive(t, sums, departed)

    def differences(self, t: int) -> dict[str, Tensor]:
        """What is exchanged in round t, by name; ``x``: x_n - s_n of its fragment, [W, J_p]."""
        part, memory = self.part(t), None
        if part.whole and not self.delay:
            memory, self.spent = self.spent, None
        return {"x": torch.sub(part.take(self.x), part.take(self.pulled), out=memory)}

    def receive(self, t: int, sums: Mapping[str, Tensor], departed: Tensor) -> None:
        """``sums``: of what was exchanged in round t, by name. ``departed``: the x_n of its fragment that were sent,
        [W, J_p], where ``uses_departed``."""
        part = self.part(t)
        average = part.take(self.pulled_average) + sums["x"]
        self.average = part.replaced(self.average, average)
        self.merge(t, average, departed)

    @abstractmethod
    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        """Moves the workers' fragments of round t: ``average``, x_A [J_p], is known to all; ``departed`` as above."""

    def continue_from(self, t: int, x: Tensor) -> None:
        """Every worker continues from x, [J_p], in round t's fragment. Where it is the whole model, it is copied for
        each of them when the next round begins."""
        part, workers = self.part(t), len(self.weights)
        self.pulled_average = part.replaced(self.pulled_average, x)
        self.pulled = self.pulled_average.expand(workers, -1)
        self._move(part, self.pulled if part.whole else x.expand(workers, -1))

    def continue_apart(self, t: int, x: Tensor, pulled: Tensor, pulled_average: Tensor) -> None:
        """Worker n continues from x_n, [W, J_p], in round t's fragment; ``pulled``, ``pulled_average``: its s_n and
        s_A."""
        part = self.part(t)
        if not part.whole and self.pulled.data_ptr() == self.pulled_average.data_ptr():
            self.pulled = self.pulled.clone()
        self.pulled = part.replaced(self.pulled, pulled)
        self.pulled_average = part.replaced(self.pulled_average, pulled_average)
        self._move(part, x)

    def _move(self, part: Fragment, x: Tensor) -> None:
        """``x`` [W, J_p] are the y_n."""
        if self.replaces:
            self.x = x
            return
        part.put(torch.lerp(x, part.take(self.x), self.mix) if self.mix else x, self.x)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        names = {name.split(".")[1] for name in state if name.startswith("sums.")}
        t = int(state["travelling"]) - 1
        self.sums = {
            name: DelayedSum(self.context.comm, self.codec(name, t), self.weights, self.part(t).dim)
            for name in sorted(names)
        }
        super().load_state_dict(state)

    # -- what is evaluated

    def centre_of_workers(self) -> Tensor:
        """x_A of the last exchange, [J]. All processes call it together."""
        return self.average

    def model(self) -> Tensor:
        return self.centre_of_workers()

    def worker_models(self) -> Tensor | None:
        if self.before_exchange is None or self.answers is not None:
            return None
        return self.context.comm.watched(self.before_exchange)

    def diagnostics(self) -> dict[str, float]:
        if self.answers is not None:
            return {"answers": self.answers}
        before, centre = self.x if self.before_exchange is None else self.before_exchange, self.centre_of_workers()
        radii = [row_norms(x - centre).double() for x in (before, self.x)]
        before, after = self.context.comm.watched(torch.stack(radii, dim=1)).unbind(1)
        return {"consensus": float(before.square().sum()), "valley_width": float(after.mean())}


def _copied(x: Tensor, memory: Tensor | None) -> Tensor:
    return x.clone() if memory is None else memory.copy_(x)
