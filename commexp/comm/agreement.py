"""What all processes must know of each other: whether one wants to stop, has a checkpoint due, or met a NaN."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from commexp.comm.links import Handle, Links

PAUSE = 0.25  # seconds between two agreements of quick rounds: each costs as much as a small exchange
MOST = 100  # rounds between two agreements


class Agreement:
    """Adds up every process's answers to ``ask``, beside a round's first exchange.

    It begins when a process has its message ready and is read when the round is over. An exchange completes when the
    slowest process has begun it, so the sums have arrived by then; the time of their arrival tells when the slowest
    process was ready. A round has an agreement when the caller says so, and else about four times a second. Which
    rounds those are follows from the processes' own times, which are added up with the answers and so equal for all.
    """

    def __init__(self, links: Links, ask: Callable[[], Sequence[int]]) -> None:
        self.links, self.ask = links, ask
        self._round = self._last = self._next = 0
        self._since = time.perf_counter()
        self._asked = False
        self._sums: Tensor | None = None
        self._ready: float | None = None

    def begin_round(self, number: int, needed: bool) -> None:
        """``needed``: what comes after this round depends on the answers; equal for all processes."""
        self._round = number
        self._asked = needed or number >= self._next or self.links.processes == 1

    def begin(self) -> None:
        """Asks this process, if the round has an agreement and it has not been asked yet."""
        if not self._asked or self._sums is not None:
            return
        rounds = max(1, self._round - self._last)
        own = int(1e6 * (time.perf_counter() - self._since)) // rounds
        self._sums = torch.tensor([own, *self.ask()], dtype=torch.int64)
        self._ready = None
        self._handle: Handle = self.links.begin_agreement(self._sums, self._arrived)

    def _arrived(self) -> None:
        self._ready = time.perf_counter()

    def end(self) -> tuple[list[int] | None, float | None]:
        """The sums, or None if the round had no agreement, and the time.perf_counter() at which all processes had been
        asked."""
        if not self._asked:
            return None, None
        self.begin()
        assert self._sums is not None
        self._handle.wait()
        (micros, *answers), self._sums = self._sums.tolist(), None
        pause = int(1e6 * PAUSE * self.links.processes / max(1, micros))
        self._last, self._next = self._round, self._round + min(MOST, max(1, pause))
        self._since = time.perf_counter()
        return answers, self._ready
