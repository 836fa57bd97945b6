"""A server among real processes that waits for nobody longer than it must."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from commexp.comm.communicator import Answers, Closes, Communicator, Weigh, message_like
from commexp.comm.frames import pack_frames, unbundle, unpack_frames
from commexp.comm.ledger import Entry
from commexp.comm.links import Links
from commexp.compressors import CorruptMessageError, Message
from commexp.server.coordinator import Coordinator, Heard

log = logging.getLogger("commexp")


def make_communicator(report: Callable[[int, str], None], links: Links, **given: Any) -> Communicator:
    """The Communicator of this process: one that calls the others and does not wait for them where it is their server.
    ``given``: the other arguments of Communicator. ``report``: is told how many gradients of other processes were not
    finite, and a text about the first of them."""
    if isinstance(links, Coordinator):
        return Served(heard=report, links=links, **given)
    return Communicator(links=links, **given)


class Served(Communicator):
    """The first process: it hosts the server, and workers of its own.

    A round is closed when all living processes have answered that are not late by the straggler model; or after so
    many answers, or seconds, where the method says so: of those that really come, or with ``deterministic`` of those
    that come on the virtual clock. An answer to another round than the one under way is dropped. A
    process that dies, or does not answer in launch.timeout, is late for ever. ``heard``: told what others say of
    gradients that are not finite: how many, and a text about the first.
    """

    def __init__(self, heard: Callable[[int, str], None], *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        assert isinstance(self.links, Coordinator)
        self.coordinator, self.heard = self.links, heard
        self.dropped = 0  # answers that came too late
        self._pause = 0.0

    def begin_round(self, number: int, ask: bool = True, pause: float = 0.0) -> None:
        super().begin_round(number, ask)
        self._pause = pause

    def settle(self) -> list[Entry]:
        """The books are kept here alone."""
        return self.ledger.settle(self.links.agree)

    def call(self, t: int, x: Tensor) -> None:
        self.coordinator.order(t, x)
        self._begun = time.monotonic()

    def answers(self, message: Message, expected: np.ndarray, closes: Closes, weigh: Weigh) -> Answers:
        self.watch.to("transfer")
        came = self._collect(message, expected, closes)
        self.watch.to("decode")
        answered = np.zeros(self.size, dtype=bool)
        answered[sorted(came)] = True
        exchange, weights = self.exchange_of(message), weigh(answered)
        total = message_like(message).new_zeros(message.dim)
        if came:
            everyone, _ = unpack_frames([came[n] for n in sorted(came)], message)
            bits = message.info_bits / message.nbytes * everyone.nbytes
            self.count_answers(exchange, list(zip(sorted(came), everyone.sizes, strict=True)), bits, answered)
            if weights is not None:
                own = torch.from_numpy(weights[answered]).to(total)
                total = message.codec.finalize(everyone, message.codec.total(everyone, own, self.deterministic))
        else:
            self.count_answers(exchange, [], 0.0, answered)
        self.count_down(exchange, total)
        self.watch.to("compute")
        return Answers(answered, weights, total)

    def _collect(self, message: Message, expected: np.ndarray, closes: Closes) -> dict[int, Tensor]:
        """The frames that count, by worker."""
        own = pack_frames(message, torch.ones(message.workers))
        first, deadline = (None, None) if self.deterministic else closes
        by_model = (first, deadline) == (None, None)
        here, links = len(self.worker_ids), self.coordinator
        ready = time.monotonic() + self._pause
        ends = self._begun + (links.timeout if deadline is None else deadline)
        came: dict[int, Tensor] = {}
        wanted = {n // here for n in np.flatnonzero(expected).tolist()} if by_model else set(range(links.processes))
        answered: set[int] = set()

        def add(rank: int, frames: list[Tensor]) -> None:
            answered.add(rank)
            ids = range(rank * here, rank * here + here)
            came.update((n, f) for n, f in zip(ids, frames, strict=True) if expected[n] or not by_model)

        while True:
            now = time.monotonic()
            if 0 not in answered and (now >= ready or 0 not in wanted):
                add(0, own)
            if (first is not None and len(came) >= first) or (now >= ends and deadline is not None):
                break
            missing = wanted - answered - links.lost.keys()
            if not missing:
                break
            if now >= ends:
                for rank in missing - {0}:
                    links.lose(rank)
                ends = math.inf
                continue
            heard = links.hear(min(ends, ready if 0 in missing else ends) - now)
            if heard is None or heard.lost:
                continue
            if heard.bad or heard.fault:
                self.heard(heard.bad, bytes(heard.body.tolist()).decode() if heard.fault else "")
            if heard.number == links.round and len(heard.body):
                # a fault's round will not count: something in its place
                frames = own if heard.fault else self._read(heard, message)
                if frames is None:
                    links.close(heard.rank)
                    links.lose(heard.rank)
                else:
                    add(heard.rank, frames)
            elif len(heard.body):
                self.dropped += 1
        return came

    def _read(self, heard: Heard, like: Message) -> list[Tensor] | None:
        """The frames of a process, one for each of its workers; None where they cannot be read."""
        try:
            frames = unbundle(heard.body.to(message_like(like).device), like.workers)
            found, _ = unpack_frames(frames, like)
            like.codec.decode(found)
        except CorruptMessageError as error:
            log.warning("rank %d: a message that cannot be read: %s", heard.rank, error)
            return None
        return frames
