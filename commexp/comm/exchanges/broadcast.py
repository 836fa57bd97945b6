"""Broadcast: one worker's vector goes to all others."""

from __future__ import annotations

import math

from commexp.comm.exchanges.base import Exchange
from commexp.network.link import Transfer


class Broadcast(Exchange):
    """A binary tree: (n-1) S bytes in all, in ceil(log2 n) hops, each of which carries the whole vector."""

    name = "broadcast"
    path = "pairs"

    def hops(self, workers: int) -> int:
        return math.ceil(math.log2(workers))

    def seconds(self, transfer: Transfer) -> float:
        """ceil(log2 n) (repeats alpha + B / ((n-1) beta))"""
        pace, workers, wire, repeats, *_ = transfer
        return self.hops(workers) * (repeats * pace.latency / 1e3 + wire / max(1, workers - 1) / pace.slower)

    def wire(self, size: int, workers: int) -> int:
        return (workers - 1) * size
