"""A value over several runs: mean, standard deviation and count, and whether two of them differ by more than errors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

ERRORS = 2.0  # standard errors of a difference, beyond which it counts as one
#: name, seconds, and below how many seconds it is used
UNITS = (("ms", 1e-3, 1.0), ("s", 1.0, 100.0), ("min", 60.0, 6e3), ("h", 3600.0, 3.6e5), ("d", 86400.0, math.inf))


@dataclass(frozen=True)
class Spread:
    """``mean`` and ``std`` (n - 1) of ``count`` values; ``std`` is NaN where there are fewer than two."""

    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """NaN of none. Where a value is infinite or NaN, so is the mean. Values that agree in 12 digits have the
        deviation 0: no seed made their difference."""
        each = np.array([*values], dtype=float)
        if not len(each):
            return cls(math.nan, math.nan, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = float(each.mean()), float(each.std(ddof=1)) if len(each) > 1 else math.nan
            return cls(mean, 0.0 if np.ptp(each) <= 1e-12 * abs(mean) and len(each) > 1 else std, len(each))

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN where fewer than two values do not tell it."""
        return self.std / math.sqrt(self.count) if self.count > 1 else math.nan

    def differs(self, other: Spread) -> bool | None:
        """Whether the means differ by more than ERRORS standard errors of their difference, sqrt(e1^2 + e2^2); None
        where the errors are not known."""
        error = math.hypot(self.error, other.error)
        return None if math.isnan(error) else abs(self.mean - other.mean) > ERRORS * error


def human_seconds(seconds: float, spread: float = 0.0) -> str:
    """0.0123 -> '12.3 ms', 5400 -> '90 min', 864000 -> '10 d'; with a standard deviation of 600 s '90 min ± 10'."""
    if math.isnan(seconds):
        return "-"
    if math.isinf(seconds):
        return "never"
    name, size, _ = next(unit for unit in UNITS if abs(seconds) < unit[2]) if seconds else UNITS[1]
    value, about = seconds / size, spread / size
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text} {name}" + (f" ± {about:.2g}" if spread > 0 else "")


def human_bandwidth(bandwidth: float) -> str:
    """Of Mbit/s: 100 -> '100 Mbit/s', 2500 -> '2.5 Gbit/s'."""
    return f"{bandwidth:.3g} Mbit/s" if bandwidth < 1000 else f"{bandwidth / 1000:.3g} Gbit/s"
