"""What all processes must know before a round counts: whether someone wants to stop, to save, or met a NaN."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from commexp.comm.links import Links, Processes


class Agreement:
    """Adds up every process's answers to ``ask``, once a round, beside the round's first exchange.

    It is begun when a process has its message ready and read when the round is over. Nobody's exchange is complete
    before all have begun it, so by then it has long arrived; when it arrived tells when the slowest was ready.
    """

    def __init__(self, links: Links, ask: Callable[[], Sequence[int]]) -> None:
        self.links, self.ask = links, ask
        self._answers: Tensor | None = None

    def begin(self) -> None:
        """Asks this process; does nothing if it has been asked in this round."""
        if self._answers is not None:
            return
        self._answers = torch.tensor(list(self.ask()), dtype=torch.int64)
        self._ready: float | None = None
        if isinstance(self.links, Processes):
            self._handle = self.links.begin_agreement(self._answers)
            self._handle.get_future().add_done_callback(self._arrived)

    def _arrived(self, future: object) -> None:
        self._ready = time.perf_counter()

    def end(self) -> tuple[list[int], float | None]:
        """The sums, and the time.perf_counter() at which all had been asked (None for one process)."""
        self.begin()
        assert self._answers is not None
        if isinstance(self.links, Processes):
            self._handle.wait()
        answers, self._answers = self._answers.tolist(), None
        return answers, self._ready
