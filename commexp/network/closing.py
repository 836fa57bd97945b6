"""When a round is closed without those who have not answered yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Closing:
    """A round is closed when all workers that are not late have answered; or, where one of these is given, as soon as
    the ``first`` n of all have, or ``deadline`` seconds have gone by. With ``grace``, a round waits so many seconds
    more after the ``first`` n, unless all have answered before. What comes later counts for nothing."""

    first: int | None = None
    deadline: float | None = None
    grace: float | None = None

    def closed(
        self, seconds: np.ndarray, late: np.ndarray, usual: float, tie_break: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Who has answered, bool [N], and how long the round took. ``seconds``: in which each worker is ready, [N];
        infinity for one that has nothing to say. ``late``: bool [N]. ``usual``: how long a round takes in which nobody
        answers. ``tie_break``: who comes first of those that are ready at the same moment, [N]; else by number."""
        if self.first is None and self.deadline is None:
            answered = ~late & np.isfinite(seconds)
            return answered, float(seconds[answered].max()) if answered.any() else usual
        speaking = int(np.isfinite(seconds).sum())
        n = speaking if self.first is None else min(self.first, speaking)
        order = np.lexsort((np.arange(len(seconds)) if tie_break is None else tie_break, late, seconds))[:n]
        took = float(seconds[order[-1]])
        if self.grace is not None:
            order, took = self._within_grace(seconds, took)
        if self.deadline is not None and took > self.deadline:
            order, took = order[seconds[order] <= self.deadline], self.deadline
        answered = np.zeros(len(seconds), dtype=bool)
        answered[order] = True
        return answered, took

    def _within_grace(self, seconds: np.ndarray, enough: float) -> tuple[np.ndarray, float]:
        """Who answers until the grace is over, and when the round closes; ``enough``: when the first n have."""
        assert self.grace is not None
        last = float(seconds[np.isfinite(seconds)].max())
        closed = min(enough + self.grace, last)
        return np.flatnonzero(seconds <= closed), closed
