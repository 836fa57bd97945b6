"""When nothing moves on a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.seeding import numpy_generator

KINDS = ("periodic", "exponential")
DRAWN = 256  # outages drawn at a time


@dataclass
class Outage:
    """All links fail together. ``lasts``: seconds. ``every``: seconds between two beginnings; 0 and 0: never.
    ``kind``: periodic or exponential.

        periodic      begins at every, 2 every, 3 every, ...
        exponential   begins E1 (every - lasts) after the one before has ended, and is E2 lasts long, E1, E2 ~ Exp(1)

    Source of the drawn one: the two-state process of Gilbert, Capacity of a burst-noise channel, 1960, in continuous
    time; the share of time without a network is lasts / every in both.
    Raises ValueError for values out of range.
    """

    kind: str = "periodic"
    every: float = 0.0
    lasts: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"outage.kind={self.kind}: unknown; give one of {', '.join(KINDS)}")
        if (self.every or self.lasts) and not 0 < self.lasts < self.every:
            given = f"outage={{every:{self.every},lasts:{self.lasts}}}"
            raise ValueError(f"{given}: out of range; give seconds with 0 < lasts < every")


class Outages:
    """The outages of a run, a function of its seed."""

    def __init__(self, outage: Outage, seed: int) -> None:
        self.outage, self.seed = outage, seed
        self._begins, self._ends = np.empty(0), np.empty(0)

    def next(self, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """When the first outage that ends after each of the moments begins, and when it ends; it may have begun."""
        every, lasts = self.outage.every, self.outage.lasts
        if self.outage.kind == "periodic":
            k = np.maximum(np.floor(moments / every), 1)
            k = k + (moments >= k * every + lasts)
            return k * every, k * every + lasts
        while not len(self._ends) or self._ends[-1] <= moments.max():
            rng = numpy_generator(self.seed, "outage", len(self._ends) // DRAWN)
            drawn = rng.exponential(size=(DRAWN, 2)) * (every - lasts, lasts)
            after = np.cumsum(drawn) + (self._ends[-1] if len(self._ends) else 0.0)
            self._begins, self._ends = np.append(self._begins, after[::2]), np.append(self._ends, after[1::2])
        which = np.searchsorted(self._ends, moments, side="right")
        return self._begins[which], self._ends[which]
