"""Seconds on a virtual clock for what the ledger booked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from commexp.network.compute import Compute
from commexp.seeding import numpy_generator


@dataclass
class Network:
    """Workers with one full-duplex link each, all of the same class, and the time that they compute.

    ``bandwidth``: Mbit/s per link, down, and up too unless ``up`` is given. ``latency``: milliseconds per message.
    ``compute``: seconds that a worker computes for a gradient, see Compute.

    n workers, B bytes on all links (comm/cost.py), beta = the slower of up and down in bytes/s, alpha = latency in s:

        all_reduce (ring)   2 (n-1) alpha + B / (n beta)
        all_gather (ring)   (n-1) alpha + B / (n beta)
        two_phase           (n-1) alpha + B / (n beta) for each phase
        gossip              alpha + B s / beta          s: the share of the worker with the most neighbours, 1/n if even
        broadcast (tree)    ceil(log2 n) (alpha + B / ((n-1) beta))
        server, up          alpha + max(B / down, B / ((n-1) up)): all come in over the server's own link
        server, down        alpha + max(B / up, B / ((n-1) down))

    Of r exchanges one after the other, with B bytes in all, r latencies.
    Source: Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH, 2005.
    Raises ValueError if a bandwidth is not positive, or the latency is negative.
    """

    bandwidth: float = 1000.0
    latency: float = 0.1
    up: Optional[float] = None  # noqa: UP045  (OmegaConf reads this spelling on every Python we support)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        for name in ("bandwidth", "up"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: must be positive; give Mbit/s, such as 100")
        if not self.latency >= 0:
            raise ValueError(f"latency={self.latency}: must not be negative; give 0 or more")

    def seconds(
        self,
        exchange: str,
        workers: int,
        wire: int,
        repeats: int = 1,
        direction: str = "peers",
        share: float | None = None,
    ) -> float:
        """Duration of ``repeats`` exchanges among ``workers`` that put ``wire`` bytes on all links. ``share``: of
        these, on the busiest link of a gossip."""
        alpha, n = repeats * self.latency / 1e3, workers
        down = self.bandwidth * 1e6 / 8
        up = down if self.up is None else self.up * 1e6 / 8
        slower = min(up, down)
        if exchange == "server":
            of_server, of_worker = (up, down) if direction == "down" else (down, up)
            return alpha + max(wire / of_server, wire / max(1, n - 1) / of_worker)
        if exchange == "broadcast":
            return math.ceil(math.log2(n)) * (alpha + wire / max(1, n - 1) / slower)
        hops = {"all_reduce": 2 * (n - 1), "all_gather": n - 1, "two_phase": n - 1, "gossip": 1}
        if exchange not in hops:
            raise ValueError(f"exchange={exchange}: no cost model for it")
        return hops[exchange] * alpha + wire * (share or 1 / n) / slower

    def compute_seconds(self, number: int, gradients: np.ndarray, seed: int, measured: np.ndarray) -> np.ndarray:
        """Seconds that each worker computes in round ``number``, [N]: the sum over its ``gradients`` [N], of which the
        last may be a part of one; or ``measured`` [N], times the worker's factor."""
        workers = len(gradients)
        if self.compute.kind == "measured":
            return np.asarray(measured * self.compute.factors(workers))
        count = math.ceil(gradients.max())
        if not count:
            return np.zeros(workers)
        each = self.compute.draw(numpy_generator(seed, "compute", number), workers, count)
        parts = np.clip(gradients[:, None] - np.arange(count), 0, 1)
        return np.asarray((each * parts).sum(axis=1))
