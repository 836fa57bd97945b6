"""The interface of an algorithm, and the context that it runs in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from commexp.algorithms.theory import Constants
from commexp.comm import ClosingRule, Communicator
from commexp.comm.exchanges import Exchange
from commexp.compressors import CodecContext, Compressor, Message
from commexp.state import HasState, Stateful, has_workers, put_rows, worker_rows

if TYPE_CHECKING:
    from commexp.allocations import Assignment
    from commexp.problems import Problem


SHARES = ("equal", "samples")  # the weights of workers in F and in averages


@dataclass
class Redundancy:
    """The redundant data of coded methods. ``assignment``: which worker holds which of the M subsets.
    ``local_subsets``: the subsets that the workers of this process hold, one per row of the problem's gradients.
    ``late_share``: the expected share of late workers. ``code()``: the allocation's exact code B [N, M]; raises
    ValueError if it has none."""

    assignment: Assignment
    local_subsets: Sequence[int]
    late_share: float
    code: Callable[[], np.ndarray]


def nobody_knows(t: int) -> np.ndarray:
    raise RuntimeError("no clock says who answers in time")


class WorkItem(NamedTuple):
    """What the server sends to a worker. ``body``: x [J], or whatever the method defines for ``kind``. ``version``: the
    number of updates of x so far. ``messages_received``: how many messages the server has received so far; of methods
    with rounds, one more than the last round in which a message of this process has counted. ``local_steps``: those
    that the worker has done, as far as the server knows. ``generation``: how often the worker's process has joined.
    ``save``: whether the worker is to keep its own state."""

    body: Tensor
    version: int = 0
    messages_received: int = 0
    local_steps: int = 0
    kind: int = 0
    generation: int = 0
    save: bool = False


class WorkerUpdate(NamedTuple):
    """What a worker sends to the server. ``base``: the work item from which the worker computed the message, if that is
    not the last one that it was sent. ``local_steps``: all that the worker has done."""

    message: Message
    local_steps: int
    base: WorkItem | None = None


class Clock(Protocol):
    """The time that asynchronous workers spend. ``busy``, ``idle``: seconds per worker, [N]. ``overwritten``: how many
    messages of each worker, [N], a newer message of the same worker replaced before the server read them. ``spans``:
    what the workers did in their first cycles."""

    busy: np.ndarray
    idle: np.ndarray
    overwritten: np.ndarray

    @property
    def spans(self) -> Sequence[Any]: ...


class AsyncWorkers(Protocol):
    """The workers of an asynchronous method, on a virtual clock or in processes of their own. Per worker: ``codecs``,
    its compressor; ``samples``, how many it has; ``batch_sizes``, how many one of its batches holds."""

    codecs: Sequence[Compressor]
    samples: Sequence[int]
    batch_sizes: Sequence[int]

    @property
    def clock(self) -> Clock: ...

    def select_worker(self, worker: int) -> None:
        """Makes the problem that of this worker alone (W = 1)."""

    def batches(self, worker: int) -> float:
        """The cost of a full gradient of the worker, in gradients of a batch."""

    def gradients_within(self, worker: int, seconds: float) -> int:
        """How many gradients the worker computes in ``seconds``, at least 1."""

    def serve(self, worker: int, item: WorkItem, gradients: float, up: int) -> bool:
        """Sends the work item. The worker computes ``gradients`` gradients of a batch and then sends ``up`` bytes.
        Returns False if the worker is not connected."""

    def meet(self, worker: int, other: int, size: int) -> None:
        """A worker whose message the server handles exchanges vectors of ``size`` bytes with another one."""

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        """The workers whose messages the server handles next; with ``every``, waits for all of those that are
        connected."""

    def update(self, worker: int) -> WorkerUpdate:
        """The message of a worker that the last call of ``arrivals`` returned."""


class Sent(NamedTuple):
    """A vector that every worker sends in a round: ``dim`` entries, of tensors of the model with these ``shapes``.
    ``whole``: as it is, not as the compressor's message. ``exchange``: how it goes; None: in the way that is chosen for
    the messages of the run."""

    dim: int
    shapes: Mapping[str, Sequence[int]] = MappingProxyType({})
    whole: bool = False
    exchange: Exchange | None = None


@dataclass
class AlgorithmContext:
    """What an algorithm works with: the problem, the communicator, the compressor. ``steps``: local steps of one worker
    in the whole run. ``start``: x_0 [J], which the algorithm may overwrite. ``debug``: whether to assert the method's
    invariants in every round. ``redundancy``: for coded methods. ``async_workers``: for asynchronous methods.
    ``codec_context``: what the compressor has been told, for copies of it and other random draws of the run.
    ``members_problem``: where workers are islands of several, the same problem with a row for each of their members.
    ``on_time(t)``: where rounds need not have every worker, which of them the virtual clock has answer in time in round
    t = 0, 1, ..., bool [N]; where a share of the workers takes part, of those.
    ``drawn``: where a share of the workers takes part in a round, what says in which round who does, see ``taking``.
    ``select``: makes problem and compressor those of these workers here alone, by their rows; see ``only``.
    ``sizes``: how many samples each worker has, [N]; empty where nothing is known of the data."""

    problem: Problem
    comm: Communicator
    compressor: Compressor
    steps: int
    start: Tensor
    debug: bool = False
    redundancy: Redundancy | None = None
    async_workers: AsyncWorkers | None = None
    codec_context: CodecContext = field(default_factory=CodecContext)
    on_time: Callable[[int], np.ndarray] = nobody_knows
    members_problem: Problem | None = None
    drawn: Callable[[int], np.ndarray] | None = None
    select: Callable[[Sequence[int]], None] | None = None
    sizes: Sequence[int] = ()

    def taking(self, t: int) -> np.ndarray:
        """Who takes part in round t = 0, 1, ...: bool [N]; all, unless the run has a ``participation`` below 1."""
        return np.ones(self.comm.size, dtype=bool) if self.drawn is None else self.drawn(t)

    def rows(self, t: int) -> list[int]:
        """The rows of the workers here that take part in round t: places in comm.worker_ids. There may be none."""
        return np.flatnonzero(self.taking(t)[list(self.comm.worker_ids)]).tolist()

    @contextmanager
    def only(self, rows: Sequence[int], *parts: HasState) -> Iterator[None]:
        """Within it there are no workers here but those of these ``rows`` (one or more, in ascending order): W is
        len(rows), the problem's batches and gradients are theirs alone, the compressor draws for them, and of all that
        ``parts`` keep for each worker there is what they keep of these. Afterwards the others have what they had."""
        if len(rows) == len(self.comm.worker_ids):
            yield
            return
        assert self.select is not None
        whole = [{name: each for name, each in part.state_dict().items() if has_workers(name)} for part in parts]
        for part in parts:
            part.load_state_dict({**part.state_dict(), **worker_rows(part, rows)})
        self.select(rows)
        try:
            yield
        finally:
            self.select(range(len(self.comm.worker_ids)))
            for part, before in zip(parts, whole, strict=True):
                own, common = worker_rows(part), {n: t for n, t in part.state_dict().items() if not has_workers(n)}
                part.load_state_dict({**common, **before})
                put_rows(part, rows, own, len(self.comm.worker_ids))


class Algorithm(Stateful, ABC):
    """A round-based algorithm, written once for the stacked vectors [W, J] of the local workers and a Communicator.

    A concrete algorithm is a dataclass whose fields are its hyper-parameters, checked in ``__post_init__``. It does not
    depend on which process hosts which worker. ``state`` and ``worker_state`` name what a resumed run needs, see
    Stateful; ``load_state_dict`` is called after ``setup``.
    """

    context: AlgorithmContext
    run_seed = 0  # for rounds whose lengths are drawn; known before ``setup``
    tau = 1  # local steps between two exchanges, if the number is fixed
    prelude = 0  # rounds at the beginning of which each sends something of its own
    gradients = 1  # gradients that a worker computes in a local step
    fragment_dims: Collection[int] = ()  # entries of parts of the model that have state of their own
    compressible = True  # whether the exchanged vectors may be compressed
    compressible_alternative = "dppf"  # a similar method that can compress, for the error message
    feeds_back = True  # whether it passes every aggregate to the compressor's feedback()
    overlaps_gradient = False  # whether its exchange may begin during the backward pass
    decentralised = False  # exchanges with neighbours on a graph, not with all workers
    codec_kind = ""  # contractive, unbiased or any, if messages have to tell what was sent, and a codec has to be that
    push_sum = False  # finds the average of workers whose weights sum to 1 in columns alone
    keeps_residual = False  # keeps what compression leaves out itself, so that error feedback would do it twice
    proximal = False  # minimises F + h, not F alone
    asynchronous = False  # workers exchange messages with a server one by one, without rounds of all workers
    coded = False  # several workers hold the same subset of the data
    drops_late = False  # a round closes without the workers that are late
    rejoins = False  # a process that was lost may come back in another round
    samples_workers = False  # a share of the workers may take part in a round, by ``context.taking``
    called_with = 1  # vectors of the model's length that a server sends to a worker that it calls
    #: what the workers here keep of their own from round to round, where their processes save it themselves
    own: HasState | None = None

    @abstractmethod
    def setup(self, context: AlgorithmContext) -> None:
        """Prepares the run; called once before the first round. Raises ValueError, with a message for the user, if the
        algorithm cannot run in this context."""

    @abstractmethod
    def round(self, t: int) -> None:
        """Round t = 0, 1, ...: local work and one communication."""

    def respond(self, t: int, x: Tensor) -> Message:
        """For methods that drop late workers: the messages of the local workers in round t at x [J], which another
        process keeps."""
        raise NotImplementedError(f"{type(self).__name__} has no respond()")

    def settle(self, counted: int) -> None:
        """Called between two ``respond``: ``counted`` is one more than the last round in which the messages from here
        have counted."""

    @abstractmethod
    def model(self) -> Tensor:
        """The vector [J] to evaluate."""

    def lengths(self, steps: int) -> list[int]:
        """The number of local steps of each round, ``steps`` in total; known before the first round."""
        whole, rest = divmod(steps, self.tau)
        return [self.tau] * whole + [rest] * (rest > 0)

    def steps_in(self, rounds: int) -> int:
        """The number of local steps of the first ``rounds`` rounds."""
        return rounds * self.tau

    @property
    def cycle(self) -> int:
        """After the first ``prelude`` rounds, what a worker sends in a round repeats itself after so many."""
        return 1

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        """What a worker sends in round t = 0, 1, ..., known before the first round; diagnostics left out. ``shapes``:
        of the model's tensors, ``dim`` entries in all; empty where they are not known. ``codec``: the run's."""
        return [Sent(dim, shapes)]

    def exchanged(self, shapes: Mapping[str, Sequence[int]], dim: int) -> int:
        """The most entries of the model that a worker compresses into one message. ``shapes``: of the model's tensors,
        ``dim`` entries in all. Called before ``setup``; raises ValueError for a model that does not fit."""
        return dim

    def delays_of(self, lengths: Sequence[int]) -> list[float]:
        """How many gradients of the following round a worker computes while each round's exchange travels."""
        return [0.0] * len(lengths)

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        """How many batches a worker draws in each round. A batch counts once, at however many points its gradient is
        computed. A full gradient, or a batch of another size, counts in proportion to its samples. Called after
        ``setup``."""
        return [float(n) for n in lengths]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        """How many gradients of a batch a worker computes in each round. Called after ``setup``."""
        return [float(self.gradients * n) for n in lengths]

    def steps_done(self) -> int | None:
        """The sum of the local steps of all workers so far; None if all workers do equally many."""
        return None

    def samples_done(self) -> float | None:
        """The samples that all workers have drawn so far; None if ``batches_of`` determines them in advance."""
        return None

    def theoretical_step(self, constants: Constants) -> float:
        """The largest learning rate that the method's theory allows. Called after ``exchanged`` and before ``setup``,
        with ``context`` not set. Raises ValueError, with a message for the user, where none is known: for the method,
        which then leaves this out, or for these constants."""
        raise ValueError("lr=theory: no step is known for this method; give a number")

    def theoretical_probability(self, constants: Constants) -> float | None:
        """The probability of an exchange in a local step with which the theory needs the fewest of them, for the
        summary; None for methods without one, and where it is not known."""
        return None

    @property
    def has_theory(self) -> bool:
        """Whether ``theoretical_step`` is implemented."""
        return type(self).theoretical_step is not Algorithm.theoretical_step

    def closing_rule(self, assignment: Assignment | None) -> ClosingRule | None:
        """What closes a round that does not wait for all workers, else None. ``assignment``: of coded methods."""
        return None

    def worker_models(self) -> Tensor | None:
        """The models [N, J] of all workers before the most recent exchange; None if all workers share one model. For
        diagnostics: the ledger does not count this gather. All processes call it together."""
        return None

    def diagnostics(self) -> dict[str, float]:
        """Extra columns of metrics.csv."""
        return {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Further tables that the run writes at its end, by name."""
        return {}
