"""What an algorithm is given, and what it must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from commexp.comm import Communicator
from commexp.compressors import Compressor, Message

if TYPE_CHECKING:
    from commexp.allocations import Assignment
    from commexp.problems import Problem


@dataclass
class Redundancy:
    """Who holds what, and who answers. ``here``: the subsets that this process's workers hold, the rows of the
    problem's gradients. ``late``: the share of late workers. ``answered``: of round t = 0, 1, ..., bool [N].
    ``code``: the allocation's exact code B [N, M]; raises ValueError where it has none."""

    assignment: Assignment
    local_subsets: Sequence[int]
    late_share: float
    on_time: Callable[[int], np.ndarray]
    code: Callable[[], np.ndarray]


class WorkItem(NamedTuple):
    """What the server sends a worker. ``body``: x [J], or what the method makes of ``kind``. ``version``: updates of x
    so far. ``messages_received``: by the server. ``local_steps``: of the worker, as far as the server knows.
    ``generation``: how often the worker's process has joined. ``save``: whether it is to keep its codec's state.
    """

    body: Tensor
    version: int = 0
    messages_received: int = 0
    local_steps: int = 0
    kind: int = 0
    generation: int = 0
    save: bool = False


class WorkerUpdate(NamedTuple):
    """What a worker sends the server. ``local_steps``: that it has done in all. ``base``: the item on which it worked,
    if that was not the last one that it has been sent."""

    message: Message
    local_steps: int
    base: WorkItem | None = None


class Clock(Protocol):
    """Of workers that do not wait: seconds of each, [N], and what they did in their first cycles. ``overwritten``:
    messages [N] whose place a newer one of the same worker took before the server had read them."""

    busy: np.ndarray
    idle: np.ndarray
    overwritten: np.ndarray

    @property
    def spans(self) -> Sequence[Any]: ...


class AsyncWorkers(Protocol):
    """The workers of an asynchronous method, on a virtual clock or in processes, see server/.
    ``codecs``: a compressor for each worker. ``samples``: of each worker. ``batch_sizes``: of each worker's batches."""

    codecs: Sequence[Compressor]
    samples: Sequence[int]
    batch_sizes: Sequence[int]

    @property
    def clock(self) -> Clock: ...

    def select_worker(self, worker: int) -> None:
        """Makes the problem that of this worker, with W = 1."""

    def batches(self, worker: int) -> float:
        """How many batches' gradients one of all the samples of the worker costs."""

    def gradients_within(self, worker: int, seconds: float) -> int:
        """How many gradients the worker computes in so many seconds, 1 or more."""

    def serve(self, worker: int, item: WorkItem, gradients: float, up: int) -> bool:
        """Sends the item; the worker computes ``gradients`` of a batch, and will send ``up`` bytes. False where it
        has no process now."""

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        """The workers whose messages are dealt with next; where ``every`` is given, all of those that are there."""

    def update(self, worker: int) -> WorkerUpdate:
        """Of one of the last ``arrivals``."""


@dataclass
class AlgorithmContext:
    """The world of one run: the problem, the exchange, the compressor, the local steps of a worker in the whole run,
    the start x_0 [J]. ``debug``: what must hold in every round is asserted. ``redundancy``: of coded methods.
    ``async_workers``: of asynchronous ones."""

    problem: Problem
    comm: Communicator
    compressor: Compressor
    steps: int
    start: Tensor
    debug: bool = False
    redundancy: Redundancy | None = None
    async_workers: AsyncWorkers | None = None


class Algorithm(ABC):
    """A round-based algorithm, written once for stacked vectors [W, J] and a Communicator.

    A concrete algorithm is a dataclass whose fields are its hyper-parameters, checked in ``__post_init__``.
    It never asks where a worker lives.
    """

    context: AlgorithmContext
    tau = 1  # local steps between two exchanges, where the number is fixed
    gradients = 1  # gradients that a worker computes in a local step
    compressible = True  # whether what is exchanged may be compressed ...
    compressible_alternative = "dppf"  # ... and else who does so
    feeds_back = True  # tells the compressor of every aggregate
    overlaps_gradient = False  # its exchange may begin while a gradient is still being computed
    decentralised = False  # exchanges with neighbours on a graph, not with all
    proximal = False  # minimises F + h, not F alone
    asynchronous = False  # workers and a server exchange messages one by one, on a clock of events
    coded = False  # its problem's gradients are those of subsets that several workers hold, and nobody waits for all

    @abstractmethod
    def setup(self, context: AlgorithmContext) -> None:
        """Takes its place in the world; called once before the first round. Raises ValueError, in words for the user,
        if it cannot work there."""

    @abstractmethod
    def round(self, t: int) -> None:
        """Round t = 0, 1, ...: local work and one communication."""

    def respond(self, t: int, x: Tensor) -> Message:
        """Of coded methods: what the workers here answer in round t at x [J], where another process keeps x."""
        raise NotImplementedError(f"{type(self).__name__} does not answer calls")

    @abstractmethod
    def model(self) -> Tensor:
        """The vector [J] to evaluate."""

    def lengths(self, steps: int) -> list[int]:
        """Local steps of each round, ``steps`` in all; known before the first one."""
        whole, rest = divmod(steps, self.tau)
        return [self.tau] * whole + [rest] * (rest > 0)

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        """Batches that a worker draws in each round, each counted once at however many points its gradient is taken;
        a full gradient, or another batch of another size, by its samples. Called after ``setup``."""
        return [float(n) for n in lengths]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        """Gradients of a batch that a worker computes in each round; called after ``setup``."""
        return [float(self.gradients * n) for n in lengths]

    def steps_done(self) -> int | None:
        """Local steps of all workers so far, where they do not all do as many."""
        return None

    def samples_done(self) -> float | None:
        """Samples that all workers have drawn so far, where ``batches_of`` cannot say so before."""
        return None

    def closing_rule(self, assignment: Assignment) -> tuple[int | None, float | None] | None:
        """Of coded methods: a round ends after so many answers, or so many seconds; each is None where it ends no
        round. None instead of the pair where every round waits for all."""
        return None

    def worker_models(self) -> Tensor | None:
        """The models [N, J] of all workers before the last exchange of the run, after it; None where there is one
        model alone. Not booked: for diagnostics. All processes call it together."""
        return None

    def diagnostics(self) -> dict[str, float]:
        """Extra columns of metrics.csv."""
        return {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """More tables of the run, by name, for its end."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as named tensors."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Called after ``setup``; continues as if never interrupted."""
