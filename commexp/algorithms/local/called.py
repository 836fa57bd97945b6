"""Rounds of local methods in which a share of the workers takes part, or that close without those that are late."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from commexp.algorithms.gradient.base import GradientMethod
from commexp.algorithms.gradient.optimizers import Optimizer
from commexp.comm import Answers, ClosingRule, no_message
from commexp.compressors import Compressor, Message
from commexp.state import Stateful, put_rows, worker_rows

if TYPE_CHECKING:
    from commexp.allocations import Assignment


class CalledRounds(GradientMethod):
    """The rounds of a local method with a ``quorum`` of Q workers, or of which a share of the workers takes part
    (``participation``), all of which begin a round at the same x:

    1.  The server tells x to all workers, or to those that take part. Each of them takes its local steps from x and
        answers with C(x_n - x). The others compute nothing.
    2.  The round closes when all of them have answered; with a quorum already ``grace`` seconds after the Q-th answer.
    3.  The exchange of the method follows, with the mean over the workers A that have answered in the place of the mean
        over all:

            x_A = x + sum_{n in A} w_n C(x_n - x) / sum_{n in A} w_n          w_n: equal, or n's samples (``shares``)

    A worker that has not answered drops the round: it continues with the others from the new x, with the state of its
    optimiser and of its compressor (the residual) that it had before the round. So AdamW's bias correction counts the
    local steps of each worker by itself. Learning rates and batches are those of the run's step for all workers: a
    worker that takes part again has passed over the batches in between.

    With a quorum the virtual clock decides who answers in time; with real processes and a server the actual arrivals,
    unless comm.deterministic is set. There worker 0 lives with the server, which closes a round when its own workers
    have answered, too. A process of whose workers none takes part sleeps until one does.
    A process that is lost is left out. It may come back in any later round, with the state of the last checkpoint;
    without one, with empty state. A process keeps a copy of that state as it was before the round. Where the server
    keeps sums of what the workers keep (``codec_kind``), no process may be lost: they are in step, and the run stops.
    """

    quorum: int | None
    grace: float
    shares: str
    answers: int | None = None  # messages that have counted so far; None where every round has every worker
    taken: Tensor | None = None  # local steps of each worker here that have counted, [W] int64
    pulled_average: Tensor
    spent: Tensor | None
    update: Optimizer
    x: Tensor

    def check_quorum(self) -> None:
        """Raises ValueError for a quorum or a grace that the method cannot have."""
        if self.quorum is None:
            if self.grace:
                raise ValueError(f"grace={self.grace}: begins when a quorum has answered; give quorum=..., or grace=0")
            return
        if not type(self).samples_workers:  # whose workers continue from the same x, and need no more
            raise ValueError(
                f"quorum={self.quorum}: after an exchange of {type(self).__name__} a worker needs more than an x that "
                "is the same for all, and one that is left out has no more; give null, or algo=localsgd or diloco"
            )
        if self.quorum < 1:
            raise ValueError(f"quorum={self.quorum}: must not be less than 1; give how many answers suffice, or null")
        if not self.grace >= 0:
            raise ValueError(f"grace={self.grace}: must not be negative; give seconds, or 0 for none")
        self.drops_late = self.rejoins = True

    def begin_called(self) -> None:
        """Part of ``setup``; raises ValueError for more workers than there are, and a compressor that needs all."""
        comm, codec, sampled = self.context.comm, self.context.compressor, self.context.drawn is not None
        if self.quorum is None and not sampled:
            return
        called = int(self.context.taking(0).sum())
        if self.quorum is not None and self.quorum > called:
            who = f"{called} of {comm.size} workers take part in a round" if sampled else f"there are {called} workers"
            raise ValueError(f"algo.quorum={self.quorum}: {who}; give at most so many, or null")
        if codec.phases > 1:
            raise ValueError(
                f"compress: {codec.name} takes a sum over all workers before it sends, and with algo.quorum some may "
                "be missing; give compress=topk, ..., or algo.quorum=null"
            )
        self.answers = 0
        self.taken = torch.zeros(len(comm.worker_ids), dtype=torch.int64)
        self.own = self.kept()
        self.before: dict[str, Tensor] = {}  # the own state, of those that take part, before round ``responded``
        self.responded: int | None = None  # the round of the last message that another process was sent

    def closing_rule(self, assignment: Assignment | None) -> ClosingRule | None:
        return None if self.quorum is None else ClosingRule(self.quorum, grace=self.grace)

    @property
    @abstractmethod
    def exchanges_whole(self) -> bool:
        """Whether every exchange is of the whole x and is over before the next local step."""

    @abstractmethod
    def begin_with(self, workers: int) -> None:
        """There are so many workers here in this round, and they begin at the same x."""

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
        if len(set(counts)) == 1 or not self.update.counts_steps:
            self.update.step(self.x, gradient, rate, counts[0])
        else:
            for n, count in enumerate(counts):
                one = copy.copy(self.update)
                one.buffers = {name: rows[n] for name, rows in self.update.buffers.items()}
                one.step(self.x[n], gradient[n], rate, count)
        self.taken += 1

    def called_round(self, t: int) -> None:
        comm, here = self.context.comm, list(self.context.comm.worker_ids)
        assert self.own is not None
        assert self.answers is not None
        rule, expected, rows = self.closing_rule(None), self.context.on_time(t), self.context.rows(t)
        own = [here[row] for row in rows]
        some_late = not (comm.by_clock and expected[own].all())
        before = worker_rows(self.own, rows) if some_late else {}
        here_known = self.known
        known = comm.call(t, here_known, None if self.context.drawn is None else self.context.taking(t))
        if known is not here_known:  # it comes from another process
            self.begin_at(t, known)
        answers = comm.answers(self._message(t, rows), expected, rule or ClosingRule(), self.weigh)
        if some_late:
            self._take_back(rows, before, ~answers.answered[own])
        self.answers += int(answers.answered.sum())
        if answers.weights is None:
            self.continue_from(t, self.pulled_average)
            return
        self.answering.feedback(answers.total, torch.from_numpy(answers.weights[here]).to(self.x))
        self.close(t, answers)

    @property
    def known(self) -> Tensor:
        """What the server sends to a worker that it calls: x [J]."""
        return self.pulled_average

    def begin_at(self, t: int, known: Tensor) -> None:
        """The workers here begin round t at what the server has sent, as ``known``."""
        self.continue_from(t, known)

    @property
    def answering(self) -> Compressor:
        """The codec of the workers' answers."""
        return self.context.compressor

    def answer(self, t: int) -> Message:
        """The answers of the workers here, after their local steps: vectors of the length of ``known``."""
        return self.answering.encode(self.differences(t)["x"])

    def close(self, t: int, answers: Answers) -> None:
        """The exchange of round t; ``answers``: the mean of those that have come."""
        self.receive(t, {"x": answers.total}, self.x)

    def kept(self) -> OwnState:
        return OwnState(self)

    def weigh(self, answered: np.ndarray) -> np.ndarray | None:
        """The weights of all workers in the mean over those that have ``answered``, [N]; None where none has."""
        weights = answered * (np.array(self.context.sizes) if self.shares == "samples" else 1)
        return weights / weights.sum() if weights.any() else None

    def share_of(self, answered: np.ndarray) -> float:
        """How much of all workers those are that have ``answered``, by the same weights."""
        everyone = self.weigh(np.ones_like(answered))
        assert everyone is not None
        return float(everyone[answered].sum())

    def _message(self, t: int, rows: Sequence[int]) -> Message:
        """Of the workers ``rows`` here, which take part."""
        watch = self.context.comm.watch
        if not rows:
            return no_message(self.answering, self.known)
        assert self.own is not None
        with self.context.only(rows, self.own):
            self.begin_with(len(rows))
            self.take_steps(t)
            watch.to("encode")
            self.answering.set_round(t)
            message = self.answer(t)
        self.spent = None
        return message

    def _take_back(self, rows: Sequence[int], before: Mapping[str, Tensor], lost: np.ndarray) -> None:
        """Of the workers ``rows`` here, those that are ``lost`` (bool, one for each) have what they had ``before``."""
        if lost.any():
            assert self.own is not None
            places = np.flatnonzero(lost).tolist()
            some = {name: each[places] for name, each in before.items()}
            put_rows(self.own, [rows[place] for place in places], some, len(self.context.comm.worker_ids))

    def respond(self, t: int, x: Tensor) -> Message:
        assert self.own is not None
        rows = self.context.rows(t)
        self.before, self.responded = worker_rows(self.own, rows), t
        self.begin_at(t, x)
        return self._message(t, rows)

    def settle(self, counted: int) -> None:
        """Drops what the round of the last message has left, where that has not counted."""
        if self.responded is None:
            return
        rows, here = self.context.rows(self.responded), list(self.context.comm.worker_ids)
        kept = np.full(len(rows), counted == self.responded + 1)
        if self.context.comm.by_clock:
            kept &= self.context.on_time(self.responded)[[here[row] for row in rows]]
        self._take_back(rows, self.before, ~kept)
        self.before, self.responded = {}, None


class OwnState(Stateful):
    """What the workers here keep from round to round beside x: their optimisers and compressors."""

    state = "compressor=method.answering"
    worker_state = "optimizer=method.update taken=method.taken"

    def __init__(self, method: CalledRounds) -> None:
        self.method = method
