"""A network that changes while it is used: bandwidth and latency over time, outages, jitter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from commexp.network.outage import Outage, Outages
from commexp.network.trace import BandwidthTrace
from commexp.seeding import numpy_generator

KINDS = ("none", "uniform", "lognormal", "pareto")
Moments = float | np.ndarray


@dataclass
class Jitter:
    """What the latencies of an exchange are multiplied by, drawn anew for each exchange; its mean is 1.

        none        1
        uniform     1 + spread U, U ~ U(-1, 1): ``delay 20ms 4ms`` of tc netem, where spread = 4 / 20
        lognormal   exp(spread Z - spread^2 / 2), Z ~ N(0, 1)
        pareto      (1 - 1/a) U^(-1/a), U ~ U(0, 1], a = 1 + 1/spread: a heavy tail

    ``kind``: none, uniform, lognormal or pareto. ``spread``: as in the formulas.
    Source of the uniform one: Hemminger, Network emulation with NetEm, 2005, whose default it is.
    Raises ValueError for values out of range.
    """

    kind: str = "none"
    spread: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"jitter.kind={self.kind}: unknown; give one of {', '.join(KINDS)}")
        if not self.spread >= 0 or (self.kind == "uniform" and self.spread > 1):
            raise ValueError(f"jitter.spread={self.spread}: out of range; give a share of the latency such as 0.2")

    def draw(self, rng: np.random.Generator) -> float:
        if self.kind == "none" or not self.spread:
            return 1.0
        if self.kind == "uniform":
            return 1 + self.spread * rng.uniform(-1, 1)
        if self.kind == "lognormal":
            return float(np.exp(self.spread * rng.standard_normal() - self.spread**2 / 2))
        a = 1 + 1 / self.spread
        return (1 - 1 / a) * (1 + rng.pareto(a))


class Changes:
    """How long what would take so many seconds takes on a network that changes, a function of the seed alone.

    With b(t) the bandwidth of the ``trace`` and b the network's own, which single links and the way up keep their ratio
    to: what takes w seconds for its bytes at b, and l seconds for its latencies, and begins at second s, ends at the
    first e for which

        l = integral from s to m of up(t) dt,    w = integral from m to e of up(t) b(t) / b dt

    where up(t) is 0 in an outage, else 1. The latencies are those of second s, times the jitter.
    """

    def __init__(
        self, bandwidth: float, trace: BandwidthTrace | None, outage: Outage, jitter: Jitter, seed: int
    ) -> None:
        self.trace, self.bandwidth = trace, bandwidth
        self.outages = Outages(outage, seed) if outage.lasts else None
        self._jitter, self.seed = jitter, seed

    def jitter(self, *key: str | int) -> float:
        """Of the exchange that ``key`` names."""
        if self._jitter.kind == "none":
            return 1.0
        return self._jitter.draw(numpy_generator(self.seed, "jitter", *key))

    def latency(self, moments: Moments) -> np.ndarray | None:
        """Of the network, in ms, at each of the moments; None where it is always the same."""
        return None if self.trace is None else self.trace.latency_at(np.asarray(moments, dtype=np.float64))

    def waited(self, begun: Moments, seconds: Moments) -> np.ndarray:
        """When so many seconds without an outage have gone by since each of ``begun``: what latencies take."""
        return self._advanced(begun, seconds, np.asarray, np.asarray)

    def moved(self, begun: Moments, seconds: Moments) -> np.ndarray:
        """When what takes so many seconds at the network's own bandwidth has been carried since each of ``begun``."""
        if self.trace is None:
            return self.waited(begun, seconds)
        mbit = np.asarray(seconds) * self.bandwidth
        return self._advanced(begun, mbit, self.trace.carried, self.trace.moment)

    def _advanced(
        self,
        begun: Moments,
        amount: Moments,
        passed: Callable[[np.ndarray], np.ndarray],
        moment: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """``passed``: how much of an amount goes by until a moment, outages left out; ``moment``: its inverse."""
        begun, amount = np.broadcast_arrays(np.asarray(begun, dtype=np.float64), np.asarray(amount, dtype=np.float64))
        ended = np.array(begun)
        (going,) = np.nonzero(amount.ravel() > 0)
        now, left, ended_flat = begun.ravel()[going], amount.ravel()[going], ended.ravel()
        while len(going):
            starts, ends = (np.full(len(going), np.inf),) * 2 if self.outages is None else self.outages.next(now)
            before = passed(now)
            end = np.maximum(moment(before + left), now)
            through = end <= starts
            ended_flat[going[through]] = end[through]
            cut = ~through
            stopped = np.maximum(starts[cut], now[cut])
            left = np.maximum(left[cut] - (passed(stopped) - before[cut]), 0.0)
            now, going = ends[cut], going[cut]
        return ended_flat.reshape(ended.shape)
