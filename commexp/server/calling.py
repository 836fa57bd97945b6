"""Rounds that drop late workers, over real processes: the server calls the others and waits no longer than it must."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from commexp.algorithms.base import WorkItem
from commexp.comm import ClosingRule, Communicator, Entry, Links, LostProcessError, pack_frames, unpack_frames
from commexp.comm.communicator import Answers, Weigh, message_like
from commexp.comm.frames import unbundle
from commexp.compressors import CorruptMessageError, Message
from commexp.server.channel import copied_bytes
from commexp.server.endpoints import FAULT, JOINED, LOOK, LOST, PackedUpdate


def make_communicator(report: Callable[[int, str], None], links: Links, **given: Any) -> Communicator:
    """The Communicator of this process: one that calls the others and does not wait for them where it is their server.
    ``given``: the other arguments of Communicator. ``report``: is told how many gradients of other processes were not
    finite, and a text about the first of them."""
    if links.server is None:
        return Communicator(links=links, **given)
    return CallingCommunicator(report, links=links, **given)


class CallingCommunicator(Communicator):
    """In the first process, which hosts the server and workers of its own.

    A round is closed when all processes have answered that were asked, of coded methods those that are not late by the
    straggler model; or after so many
    answers, or seconds, where the method says so: of those that really come, or with ``deterministic`` of those that
    come on the virtual clock. Where the closing rule has a grace, what has come by its end counts, and a round that
    has fewer workers left than must answer waits for processes to come back. An answer to another round than the one
    under way is dropped. Nobody waits for a process that is lost; one that comes back is called to the round under way.
    ``report``: see make_communicator. ``dropped``: answers that came too late.
    """

    def __init__(self, report: Callable[[int, str], None], **given: Any) -> None:
        super().__init__(**given)
        assert self.links.server is not None
        self.server, self.report = self.links.server, report
        self.dropped = 0
        self._pause = 0.0

    def begin_round(self, number: int, ask: bool = True, pause: float = 0.0) -> None:
        super().begin_round(number, ask)
        self._pause = pause

    def settle(self) -> list[Entry]:
        """All traffic is counted in this process."""
        return self.ledger.settle(self.links.agree)

    def call(self, t: int, x: Tensor, taking: np.ndarray | None = None) -> Tensor:
        super().call(t, x, taking)
        self._item = WorkItem(copied_bytes(x), t)
        for rank in sorted(self.server.joined):
            self._send_to(rank)
        self._round, self._begun = t, time.monotonic()
        return x

    def _send_to(self, rank: int) -> None:
        """A process of whose workers none was asked sleeps on."""
        if not self.asked_of(self.server.workers_of(rank)):
            self.server.let_sleep(rank)
            return
        self.server.send(rank, self._item._replace(messages_received=self.server.counted.get(rank, 0)))

    def answers(self, message: Message, expected: np.ndarray, closing_rule: ClosingRule, weigh: Weigh) -> Answers:
        self.watch.to("transfer")
        came = self._collect(message, expected, closing_rule)
        self.watch.to("decode")
        answered = np.zeros(self.size, dtype=bool)
        answered[sorted(came)] = True
        if self.server.rejoins:
            ranks = (rank for rank in self.server.ranks if answered[list(self.server.workers_of(rank))].any())
            self.server.counted.update(dict.fromkeys(ranks, self._round + 1))
        exchange, weights = self.exchange_of(message), weigh(answered)
        total = message_like(message).new_zeros(message.dim)
        if came:
            everyone, _ = unpack_frames([came[n] for n in sorted(came)], message)
            bits = message.info_bits / message.nbytes * everyone.nbytes if message.nbytes else everyone.info_bits
            self.count_answers(exchange, list(zip(sorted(came), everyone.sizes, strict=True)), bits, answered)
            if weights is not None:
                own = torch.from_numpy(weights[answered]).to(total)
                total = message.codec.finalize(everyone, message.codec.total(everyone, own, self.deterministic))
        else:
            self.count_answers(exchange, [], 0.0, answered)
        if self._asked is None:
            self.count_down(exchange, total)
        self.watch.to("compute")
        return Answers(answered, weights, total)

    def _collect(self, message: Message, expected: np.ndarray, closing_rule: ClosingRule) -> dict[int, Tensor]:
        """The frames that count, by worker."""
        own = pack_frames(message, torch.ones(message.workers)) if message.workers else []
        first, deadline, grace = ClosingRule() if self.deterministic else closing_rule
        by_model = (first, deadline) == (None, None)
        needed = 0 if closing_rule.grace is None else closing_rule.first or 0
        here, server = len(self.worker_ids), self.server
        ready = time.monotonic() + self._pause
        ends = math.inf if deadline is None else self._begun + deadline
        came: dict[int, Tensor] = {}
        asked = [self.asked_of(server.workers_of(rank)) for rank in range(server.world_size)]
        waited = np.flatnonzero(expected).tolist() if by_model else self.asked_of(range(self.size))
        wanted = {n // here for n in waited}
        answered: set[int] = set()

        def add(rank: int, frames: list[Tensor]) -> None:
            answered.add(rank)
            ids = asked[rank]
            came.update((n, f) for n, f in zip(ids, frames, strict=True) if expected[n] or not by_model)

        since = math.inf  # when too few workers were left
        while True:
            now = time.monotonic()
            if 0 not in answered and (now >= ready or 0 not in wanted):
                add(0, own)
            if first is not None and len(came) >= first:
                ends = min(ends, now + (grace or 0.0))
            if now >= ends and grace is None:
                break
            missing = wanted - answered - server.lost
            left = sum(len(each) for rank, each in enumerate(asked) if rank in answered or rank not in server.lost)
            since = min(since, now) if left < needed else math.inf
            if now - since > server.timeout.total_seconds():
                raise LostProcessError(
                    f"rank 0: {left} workers are left, fewer than algo.quorum={needed}, and none came back in "
                    "launch.timeout",
                    "",
                )
            if not missing and left >= needed:
                break
            look = now + LOOK if left < needed else math.inf
            update = server.next(min(ends, look, ready if 0 in missing else math.inf) - now, missing)
            if update is None and now >= ends:
                break
            if update is not None and update.kind == JOINED and update.rank not in answered:
                self._send_to(update.rank)
            if update is None or update.kind in (JOINED, LOST):
                continue
            fault = update.kind == FAULT
            if update.bad or fault:
                self.report(update.bad, update.text if fault else "")
            self.dropped += update.overwritten + (update.version != self._round)
            if update.version == self._round:
                if fault:
                    answered.add(update.rank)  # a round with a fault does not count
                elif (frames := self._read(update, message, len(asked[update.rank]))) is not None:
                    add(update.rank, frames)
        return came

    def _read(self, update: PackedUpdate, like: Message, workers: int) -> list[Tensor] | None:
        """The frames of a process, one for each of so many of its workers. None where they cannot be read: it is lost
        then."""
        try:
            frames = unbundle(update.body.to(message_like(like).device), workers)
            message, _ = unpack_frames(frames, like)
            like.codec.decode(message)
        except CorruptMessageError as error:
            self.server.reject(update.rank, error)
            return None
        return frames
