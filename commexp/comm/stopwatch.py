"""Where a round's time goes, measured without synchronising the processes."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds of this process in each phase of a round.

        compute     gradients, updates, and whatever is not below
        encode      from the gradient to the message
        wait        from having a message ready until the slowest process has one, too; a server for messages
        transfer    the rest of the time in exchanges
        decode      from the messages to the aggregate

    Phases follow each other: ``to`` ends one and begins the next. When the slowest process was ready is known from the
    Agreement, which begins with the round's first message: the moment at which its sums arrived (``everyone_ready``).
    In rounds without an Agreement, wait and transfer have the proportion of the last round with one. A transfer that
    runs while gradients are computed counts only from when the process waits for it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._phase, self._since = "compute", time.perf_counter()
        self._first_transfer: float | None = None
        self._share = 0.0  # of the time in exchanges that was waiting

    def start(self) -> None:
        self.seconds = {}
        self._phase, self._since, self._first_transfer = "compute", time.perf_counter(), None

    def to(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        if phase == "transfer" and self._first_transfer is None:
            self._first_transfer = now
        self._phase, self._since = phase, now

    def stop(self, everyone_ready: float | None = None) -> dict[str, float]:
        """The round's seconds; ``everyone_ready`` on the clock of time.perf_counter, None if that is not known."""
        self.to("compute")
        both = self.seconds.get("transfer", 0.0)
        if everyone_ready is not None and self._first_transfer is not None and both:
            self._share = min(max(0.0, everyone_ready - self._first_transfer), both) / both
        waited = self.seconds.get("wait", 0.0) + self._share * both
        self.seconds |= {"wait": waited, "transfer": (1 - self._share) * both}
        return self.seconds
