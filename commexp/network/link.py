"""Seconds on a virtual clock for what the ledger booked."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Network:
    """Workers with one full-duplex link each, of the same speed.

    ``bandwidth``: Mbit/s per link and direction. ``latency``: milliseconds per message.
    ``compute``: seconds a worker computes for a gradient (0: the clock shows communication alone).

    n workers, B bytes on all links (comm/cost.py), beta = bandwidth in bytes/s, alpha = latency in s:

        all_reduce (ring)   2 (n-1) alpha + B / (n beta)
        all_gather (ring)   (n-1) alpha + B / (n beta)
        two_phase           (n-1) alpha + B / (n beta) for each phase
        gossip              alpha + B / (n beta)
        broadcast (tree)    ceil(log2 n) (alpha + B / ((n-1) beta))
        server              alpha + B / beta for each direction: the server's own link is shared by all

    Of r exchanges one after the other, with B bytes in all, r latencies.

    Source: Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH, 2005.
    Raises ValueError if bandwidth is not positive, or latency or compute is negative.
    """

    bandwidth: float = 1000.0
    latency: float = 0.1
    compute: float = 0.0

    def __post_init__(self) -> None:
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth={self.bandwidth}: must be positive; give Mbit/s, such as 100")
        for name in ("latency", "compute"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative; give 0 or more")

    def seconds(self, exchange: str, workers: int, wire: int, repeats: int = 1) -> float:
        """Duration of ``repeats`` exchanges among ``workers`` that put ``wire`` bytes on all links."""
        alpha, beta, n = repeats * self.latency / 1e3, self.bandwidth * 1e6 / 8, workers
        if exchange == "server":
            return alpha + wire / beta
        if exchange == "broadcast":
            return math.ceil(math.log2(n)) * (alpha + wire / max(1, n - 1) / beta)
        hops = {"all_reduce": 2 * (n - 1), "all_gather": n - 1, "two_phase": n - 1, "gossip": 1}
        if exchange not in hops:
            raise ValueError(f"exchange={exchange}: no cost model for it")
        return hops[exchange] * alpha + wire / n / beta
