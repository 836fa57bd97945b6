"""The base of methods that compress differences of gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from commexp.algorithms.base import Algorithm, AlgorithmContext, Sent
from commexp.algorithms.gradient.base import Schedule
from commexp.comm import ClosingRule, no_message
from commexp.compressors import Compressor, NoCompression

Rows = slice | list[int]  # of the workers here: all, or some in ascending order


class Differences(NamedTuple):
    """``own``: C(d_n) of the local workers, [W, J], zero for those that take no part. ``mean``: of all N, [J]."""

    own: Tensor
    mean: Tensor


@dataclass
class DifferenceMethod(Algorithm):
    """Every round, on every worker n = 1..N, with the learning rate gamma = ``lr`` times the schedule's factor:

        m_n = C(d_n)                a difference d_n, which the concrete method defines; one exchange
        x <- x - gamma g            g: made of mean_n m_n and what is known of the gradients already

    C is the compressor, without error feedback: what it leaves out remains in the next difference. Everybody knows x
    and means over all workers, so a process stores these once, [J]; vectors of each worker are known to that worker
    and, from its messages, to whoever adds them up. The concrete method says in ``codec_kind`` whether C has to be
    contractive or unbiased. ``all_samples``: gradients are over all samples of a worker, whatever the batch size;
    otherwise over batches, which are all samples with batch_size=null.

    Where a share s of the workers takes part in a round (``participation``), the server sends x to those; they alone
    compute and send, and the server alone knows what is made of it. In mean_n m_n the others count as zero. The server
    keeps sums of what the workers keep, so no process may be lost: real processes are in step.
    Raises ValueError if lr is not positive.
    """

    state = "x compressor=context.compressor"
    keeps_residual = True
    all_samples = False
    lr: float = 0.1
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be positive; give a step size such as 0.1")

    def setup(self, context: AlgorithmContext) -> None:
        self.context = context
        self.x = context.start
        comm = context.comm
        self.weights = self.x.new_full((len(comm.worker_ids),), 1.0 / comm.size)
        self.share = float(context.taking(0).sum()) / comm.size

    @property
    def variance(self) -> float:
        """omega of the compressor. Raises ValueError where it is biased."""
        omega = self.context.compressor.omega(len(self.x))
        if omega is None:
            raise ValueError(f"compress: {self.context.compressor.name} is biased; give compress=qsgd or the like")
        return omega

    @abstractmethod
    def direction(self, t: int) -> Tensor:
        """g of round t, [J]."""

    def sends_whole(self, t: int) -> bool:
        """Whether all workers send whole vectors in round t, not messages of the compressor."""
        return False

    def round(self, t: int) -> None:
        rate = self.lr * self.schedule.factor(t, self.context.steps)
        self.x = self.x.add(self.direction(t), alpha=-rate)

    def evaluated(self, t: int, rows: Rows, x: Tensor | None = None) -> Tensor:
        """grad f_n(x) of the workers ``rows`` here, [rows, J]; the next call may overwrite it. ``x``: else the current
        one."""
        workers = len(self.weights) if isinstance(rows, slice) else len(rows)
        problem, points = self.context.problem, (self.x if x is None else x).expand(workers, -1)
        if self.all_samples:
            return problem.local_gradient(points)[1]
        return problem.loss_and_grad(points, problem.batch(t))[1]

    def exchange(self, t: int, differences: Callable[[Rows], Tensor]) -> Differences:
        """The compressed exchange of round t. ``differences``: is called once with the rows of those workers here that
        take part, if there are any, and gives their d_n, [rows, J]; the problem's gradients are then theirs alone."""
        comm, codec = self.context.comm, self.context.compressor
        if self.context.drawn is not None:
            return self._called(t, differences)
        vectors = differences(slice(None))
        comm.watch.to("encode")
        message = codec.encode(vectors)
        own, mean = codec.decode(message), comm.aggregate(message, self.weights)
        codec.feedback(mean, self.weights)
        return Differences(own, mean)

    def _called(self, t: int, differences: Callable[[Rows], Tensor]) -> Differences:
        """The same, of those that the server calls; the mean is known to the server alone."""
        context = self.context
        comm, codec, taking, rows = context.comm, context.compressor, context.taking(t), context.rows(t)
        self.known = comm.call(t, self.known, taking)
        message, own = no_message(codec, self.x), self.x.new_zeros(len(self.weights), len(self.x))
        if rows:
            with context.only(rows, codec):
                comm.watch.to("compute")
                vectors = differences(rows)
                comm.watch.to("encode")
                codec.set_round(t)
                message = codec.encode(vectors)
                own[rows] = codec.decode(message)
        answers = comm.answers(message, taking, ClosingRule(), lambda answered: answered / comm.size)
        return Differences(own, answers.total)

    @property
    def known(self) -> Tensor:
        """What the server sends to those that it calls."""
        return self.x

    @known.setter
    def known(self, told: Tensor) -> None:
        self.x = told

    def mean(self, rows: Tensor) -> Tensor:
        """The exchange of whole vectors, [W, J] -> their mean over all workers, [J]."""
        comm = self.context.comm
        comm.watch.to("encode")
        return comm.aggregate(NoCompression().encode(rows), self.weights)

    def model(self) -> Tensor:
        return self.x

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        return [Sent(dim, shapes, whole=self.sends_whole(t))]

    @property
    def cycle(self) -> int:
        """Of methods that send whole vectors now and then, no round is said to repeat another one."""
        sometimes = type(self).sends_whole is not DifferenceMethod.sends_whole
        return self.context.steps if sometimes else 1

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        problem = self.context.problem
        size = problem.samples / self.context.comm.size / problem.samples_per_step if self.all_samples else 1.0
        return [size] * len(lengths)

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        return self.batches_of(lengths)
