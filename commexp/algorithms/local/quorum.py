"""Rounds of local methods that close without the workers that are late."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from commexp.algorithms.gradient.base import GradientMethod
from commexp.algorithms.gradient.optimizers import Optimizer
from commexp.comm import ClosingRule
from commexp.compressors import Message
from commexp.state import Stateful, restore_rows, worker_rows

if TYPE_CHECKING:
    from commexp.allocations import Assignment


class QuorumRounds(GradientMethod):
    """The rounds of a local method with a ``quorum`` of Q workers, all of which begin a round at the same x:

    1.  The server tells x to all workers. Worker n takes its local steps from x and answers with C(x_n - x).
    2.  The round closes ``grace`` seconds after the Q-th answer, or when all have answered.
    3.  The exchange of the method follows, with the mean over the workers A that have answered in the place of the mean
        over all:

            x_A = x + (1/|A|) sum_{n in A} C(x_n - x)

    A worker that has not answered drops the round: it continues with the others from the new x, with the state of its
    optimiser and of its compressor (the residual) that it had before the round. So AdamW's bias correction counts the
    local steps of each worker by itself. Learning rates and batches are those of the run's step for all workers.

    The virtual clock decides who answers in time. With real processes and a server the actual arrivals decide, unless
    comm.deterministic is set; there worker 0 lives with the server, which closes a round when its own workers have
    answered, too. A process that is lost is left out. It may come back in any later round, with the state of the last
    checkpoint; without one, with empty state. A process keeps a copy of that state as it was before the round.
    """

    quorum: int | None
    grace: float
    answers: int | None = None  # messages that have counted so far; None without a quorum
    taken: Tensor | None = None  # local steps of each worker here that have counted, [W] int64
    pulled_average: Tensor
    spent: Tensor | None
    update: Optimizer
    x: Tensor
    shares_x = False  # whether all workers continue from the same x after an exchange, and need no more

    def check_quorum(self) -> None:
        """Raises ValueError for a quorum or a grace that the method cannot have."""
        if self.quorum is None:
            if self.grace:
                raise ValueError(f"grace={self.grace}: begins when a quorum has answered; give quorum=..., or grace=0")
            return
        if not self.shares_x:
            raise ValueError(
                f"quorum={self.quorum}: after an exchange of {type(self).__name__} a worker needs more than an x that "
                "is the same for all, and one that is left out has no more; give null, or algo=localsgd or diloco"
            )
        if self.quorum < 1:
            raise ValueError(f"quorum={self.quorum}: must not be less than 1; give how many answers suffice, or null")
        if not self.grace >= 0:
            raise ValueError(f"grace={self.grace}: must not be negative; give seconds, or 0 for none")
        self.drops_late = self.rejoins = True

    def begin_quorum(self) -> None:
        """Part of ``setup``; raises ValueError for more workers than there are, and a compressor that needs all."""
        if self.quorum is None:
            return
        comm, codec = self.context.comm, self.context.compressor
        if self.quorum > comm.size:
            raise ValueError(f"algo.quorum={self.quorum}: there are {comm.size} workers; give at most so many, or null")
        if codec.phases > 1:
            raise ValueError(
                f"compress: {codec.name} takes a sum over all workers before it sends, and with algo.quorum some may "
                "be missing; give compress=topk, ..., or algo.quorum=null"
            )
        self.answers = 0
        self.taken = torch.zeros(len(comm.worker_ids), dtype=torch.int64)
        self.own = OwnState(self)
        self.before: dict[str, Tensor] = {}  # the own state before round ``responded``
        self.responded: int | None = None  # the round of the last message that another process was sent

    def closing_rule(self, assignment: Assignment | None) -> ClosingRule | None:
        return None if self.quorum is None else ClosingRule(self.quorum, grace=self.grace)

    @abstractmethod
    def take_steps(self, t: int) -> None:
        """The local steps of round t."""

    @abstractmethod
    def differences(self, t: int) -> dict[str, Tensor]:
        """What is exchanged in round t, by name; ``x``: x_n - x, [W, J]."""

    @abstractmethod
    def receive(self, t: int, sums: Mapping[str, Tensor], departed: Tensor) -> None:
        """``sums``: of what was exchanged in round t, by name."""

    @abstractmethod
    def continue_from(self, t: int, x: Tensor) -> None:
        """Every worker continues from x [J]."""

    def update_workers(self, gradient: Tensor, step: int) -> None:
        """The workers' optimisers take local step ``step`` with ``gradient`` [W, J]."""
        rate = self.rate(step)
        if self.taken is None:
            self.update.step(self.x, gradient, rate, step)
            return
        counts = self.taken.tolist()
        if len(set(counts)) == 1:
            self.update.step(self.x, gradient, rate, counts[0])
        else:
            for n, count in enumerate(counts):
                one = copy.copy(self.update)
                one.buffers = {name: rows[n] for name, rows in self.update.buffers.items()}
                one.step(self.x[n], gradient[n], rate, count)
        self.taken += 1

    def quorum_round(self, t: int) -> None:
        comm, codec, here = self.context.comm, self.context.compressor, list(self.context.comm.worker_ids)
        assert self.own is not None
        assert self.answers is not None
        rule, expected = self.closing_rule(None), self.context.on_time(t)
        assert rule is not None
        some_late = not (comm.by_clock and expected[here].all())
        before = worker_rows(self.own) if some_late else {}
        comm.call(t, self.pulled_average)
        answers = comm.answers(self._message(t), expected, rule, _mean)
        if some_late:
            restore_rows(self.own, before, torch.from_numpy(~answers.answered[here]))
        self.answers += int(answers.answered.sum())
        if answers.weights is None:
            self.continue_from(t, self.pulled_average)
            return
        codec.feedback(answers.total, torch.from_numpy(answers.weights[here]).to(self.x))
        self.receive(t, {"x": answers.total}, self.x)

    def _message(self, t: int) -> Message:
        self.take_steps(t)
        codec, watch = self.context.compressor, self.context.comm.watch
        watch.to("encode")
        codec.set_round(t)
        message = codec.encode(self.differences(t)["x"])
        self.spent = None
        return message

    def respond(self, t: int, x: Tensor) -> Message:
        assert self.own is not None
        self.before, self.responded = worker_rows(self.own), t
        self.continue_from(t, x)
        return self._message(t)

    def settle(self, counted: int) -> None:
        """Drops what the round of the last message has left, where that has not counted."""
        if self.responded is None:
            return
        assert self.own is not None
        here = list(self.context.comm.worker_ids)
        kept = np.full(len(here), counted == self.responded + 1)
        if self.context.comm.by_clock:
            kept &= self.context.on_time(self.responded)[here]
        if not kept.all():
            restore_rows(self.own, self.before, torch.from_numpy(~kept))
        self.before, self.responded = {}, None


class OwnState(Stateful):
    """What the workers here keep from round to round beside x: their optimisers and compressors."""

    state = "compressor=method.context.compressor"
    worker_state = "optimizer=method.update taken=method.taken"

    def __init__(self, method: QuorumRounds) -> None:
        self.method = method


def _mean(answered: np.ndarray) -> np.ndarray | None:
    return answered / answered.sum() if answered.any() else None
