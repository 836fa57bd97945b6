"""The base of coded methods: redundant data, and rounds that do not wait for late workers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext, Redundancy
from commexp.algorithms.gradient.base import GradientMethod
from commexp.comm import ClosingRule
from commexp.compressors import Compressor, Message
from commexp.state import restore_rows, worker_rows

if TYPE_CHECKING:
    from commexp.allocations import Assignment


@dataclass
class CodedMethod(GradientMethod):
    """The data consist of M subsets, F = (1/M) sum_k f_k; worker n holds some of them. Every round:

        l_n = sum_k A[n, k] grad f_k(x)             one batch of each subset that worker n holds
        g   = sum_{n answers} a_n C(l_n)            no step if the answers do not determine the weights a_n
        x   <- x - lr_t u                           u: the optimiser's direction on g

    The concrete method defines A and a; C is the compressor. A round without a step leaves x and the optimiser's state
    as they are (AdamW's number of updates included); the learning rate schedule advances with every round. A worker
    whose message did not count keeps its previous residual.

    A round closes after ``first`` answers or ``deadline`` seconds; with neither, when all workers that the straggler
    model does not make late have answered. The virtual clock decides who answers in time. With real processes and a
    server, ``first`` and ``deadline`` apply to the actual arrivals, unless comm.deterministic is set. All workers
    receive the new x. Diagnostic: ``answers``, how many messages have counted so far. For the other fields see
    GradientMethod. Raises ValueError for a value out of range.
    """

    state = "x answers updates optimizer=update compressor=context.compressor"
    coded = drops_late = True
    first: Optional[int] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    deadline: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first is not None and self.first < 1:
            raise ValueError(f"first={self.first}: must not be less than 1; give how many answers suffice, or null")
        if self.deadline is not None and not self.deadline > 0:
            raise ValueError(f"deadline={self.deadline}: must be positive; give seconds, or null")

    @abstractmethod
    def coefficients(self, redundancy: Redundancy) -> np.ndarray:
        """A, [N, M], zero where a worker does not hold a subset. Raises ValueError if the method cannot use the
        allocation."""

    @abstractmethod
    def weights(self, answered: np.ndarray) -> np.ndarray | None:
        """a [N], zero for workers that have not ``answered`` (bool [N]); None if the round must skip its step."""

    def closing_rule(self, assignment: Assignment | None) -> ClosingRule:
        return ClosingRule(self.first, self.deadline)

    def setup(self, context: AlgorithmContext) -> None:
        assert context.redundancy is not None
        self.context, self.redundancy, comm = context, context.redundancy, context.comm
        self.refuse(context.compressor)
        if self.first is not None and self.first > comm.size:
            raise ValueError(f"algo.first={self.first}: there are {comm.size} workers; give at most so many, or null")
        self.x = context.start.clone()
        self.update = self.make_optimizer()
        self.answers = self.updates = 0
        rows = self.coefficients(self.redundancy)[list(comm.worker_ids)][:, self.redundancy.local_subsets]
        self.matrix = torch.from_numpy(rows).to(self.x)

    def refuse(self, codec: Compressor) -> None:
        """Raises ValueError for a codec with several phases, in each of which all workers must take part."""
        if codec.phases > 1:
            raise ValueError(
                f"compress: {codec.name} takes a sum over all workers before it sends; give compress=onebit, topk, ..."
            )

    def combined(self, t: int) -> Tensor:
        """l_n, [W, J]."""
        _, gradients = self.gradient(self.x.expand(self.matrix.shape[1], -1), t)
        if not self.context.comm.deterministic:
            return self.matrix @ gradients
        rows = torch.zeros(len(self.matrix), len(self.x)).to(self.x)
        for row, weights in zip(rows, self.matrix, strict=True):  # its own subsets, in the same order for every P
            for k in weights.nonzero()[:, 0].tolist():
                row += weights[k] * gradients[k]
        return rows

    def message(self, t: int) -> Message:
        """The messages of the local workers in round t."""
        codec, watch = self.context.compressor, self.context.comm.watch
        watch.to("compute")
        combined = self.combined(t)
        watch.to("encode")
        codec.set_round(t)
        return codec.encode(combined)

    def respond(self, t: int, x: Tensor) -> Message:
        self.x = x
        return self.message(t)

    def round(self, t: int) -> None:
        comm, codec, here = self.context.comm, self.context.compressor, list(self.context.comm.worker_ids)
        expected = self.context.on_time(t)
        some_late = codec.stateful_per_worker and not expected[here].all()
        before = worker_rows(codec) if some_late else {}
        comm.call(t, self.x)
        answers = comm.answers(self.message(t), expected, self.closing_rule(self.redundancy.assignment), self.weights)
        own = np.zeros(len(here)) if answers.weights is None else answers.weights[here]
        if some_late:
            counted = answers.answered[here] & (answers.weights is not None)
            restore_rows(codec, before, torch.from_numpy(~counted))
        codec.feedback(answers.total, torch.from_numpy(own).to(self.x))
        self.answers += int(answers.answered.sum())
        if answers.weights is not None:
            self.update.step(self.x, answers.total, self.rate(t), self.updates)
            self.updates += 1

    def model(self) -> Tensor:
        return self.x

    def diagnostics(self) -> dict[str, float]:
        return {"answers": self.answers}
