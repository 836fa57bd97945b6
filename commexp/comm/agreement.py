"""What all processes must know of each other: whether one wants to stop, has a checkpoint due, or met a NaN."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from commexp.comm.links import Links, Processes

PAUSE = 0.25  # seconds between two askings of quick rounds: each costs as much as a small exchange
MOST = 100  # rounds between two askings


class Agreement:
    """Adds up every process's answers to ``ask``, beside a round's first exchange.

    It is begun when a process has its message ready and read when the round is over. Nobody's exchange is complete
    before all have begun it, so by then it has long arrived; when it arrived tells when the slowest was ready.
    A round is asked when the caller says so, and else about four times a second; which rounds those are follows from
    the processes' own times, added up with the answers, so that it is the same for all.
    """

    def __init__(self, links: Links, ask: Callable[[], Sequence[int]]) -> None:
        self.links, self.ask = links, ask
        self._round = self._last = self._next = 0
        self._since = time.perf_counter()
        self._asked = False
        self._answers: Tensor | None = None
        self._ready: float | None = None

    def begin_round(self, number: int, needed: bool) -> None:
        """``needed``: what comes after this round depends on the answers; equal for all processes."""
        self._round = number
        self._asked = needed or number >= self._next or self.links.processes == 1

    def begin(self) -> None:
        """Asks this process, if the round is to be asked and it has not been yet."""
        if not self._asked or self._answers is not None:
            return
        rounds = max(1, self._round - self._last)
        own = int(1e6 * (time.perf_counter() - self._since)) // rounds
        self._answers = torch.tensor([own, *self.ask()], dtype=torch.int64)
        self._ready = None
        if isinstance(self.links, Processes):
            self._handle = self.links.begin_agreement(self._answers)
            self._handle.get_future().add_done_callback(self._arrived)

    def _arrived(self, future: object) -> None:
        self._ready = time.perf_counter()

    def end(self) -> tuple[list[int] | None, float | None]:
        """The sums, or None if the round was not asked, and the time.perf_counter() at which all had been asked."""
        if not self._asked:
            return None, None
        self.begin()
        assert self._answers is not None
        if isinstance(self.links, Processes):
            self._handle.wait()
        (micros, *answers), self._answers = self._answers.tolist(), None
        pause = int(1e6 * PAUSE * self.links.processes / max(1, micros))
        self._last, self._next = self._round, self._round + min(MOST, max(1, pause))
        self._since = time.perf_counter()
        return answers, self._ready
