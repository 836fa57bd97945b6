"""What a round takes on this machine, without what happened once."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from statistics import median

from commexp.metrics import left_out

WINDOW = 100  # rounds over which medians are taken


class RunningMedian:
    """The median of the last WINDOW values."""

    def __init__(self) -> None:
        self.values, self.ordered = deque[float](), list[float]()

    def add(self, value: float) -> None:
        if len(self.values) == WINDOW:
            del self.ordered[bisect_left(self.ordered, self.values.popleft())]
        self.values.append(value)
        insort(self.ordered, value)

    @property
    def value(self) -> float:
        """0 of no values."""
        return median(self.ordered) if self.ordered else 0.0


class MeasuredRounds:
    """Seconds that a worker is busy in each round, for ``compute.kind=measured``. With g_t gradients in round t, C_t
    seconds of computing and D_t of encoding and decoding measured in it, and w = min(3, R - 1) of the R planned rounds,

        T_t = g_t r_t + d_t,   r_t = median of C_s / g_s,   d_t = median of D_s,   over w < s <= t, the last 100 of them

    Rounds without an exchange have measured nothing: they add nothing to the medians and take g_t r_t. The first w
    rounds take no time until round w + 1, in which their time is added, by its medians. So the clock never goes back,
    is the same whenever one looks at it, and is a function of the run's tables.
    ``gradients``: g_1, ..., g_R, as planned; where a round has none, computing counts by rounds.
    """

    def __init__(self, gradients: Sequence[float]) -> None:
        self.work = gradients if all(gradients) else [1.0] * len(gradients)
        self.left_out = left_out(len(gradients))
        self.owed = 0.0, 0  # gradients and exchanges of the rounds that are left out
        self.rate, self.coding = RunningMedian(), RunningMedian()

    def seconds(self, number: int, compute: float, coding: float, exchanges: bool) -> float:
        """T_t of round t = ``number``; called for each round in turn. ``exchanges``: whether it has measured."""
        work = self.work[number - 1]
        if exchanges and number > self.left_out:
            self.rate.add(compute / work)
            self.coding.add(coding)
        due, times = work + self.owed[0], exchanges + self.owed[1]
        if not self.rate.values:
            self.owed = due, times
            return 0.0
        self.owed = 0.0, 0
        return due * self.rate.value + times * self.coding.value
