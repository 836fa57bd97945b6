"""Gossip: every worker sends to its neighbours on a graph."""

from __future__ import annotations

from collections.abc import Sequence

from commexp.comm.exchanges.base import Exchange
from commexp.network.coding import CodedTraffic
from commexp.network.link import Transfer


class GossipExchange(Exchange):
    """Each message goes to the worker's neighbours, so sum_i degree_i S_i bytes in all, in one hop.

    Processes carry it by a ``Neighbourhood``.
    """

    name = "gossip"
    among_neighbours = True
    path = "pairs"

    def hops(self, workers: int) -> int:
        return 1

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]:
        """In each mixing a worker decodes the messages of its neighbours, as many as the mean degree."""
        degree = traffic.bytes_wire / traffic.bytes_sent if traffic.bytes_sent else 0.0
        return float(traffic.repeats), traffic.repeats * degree

    def seconds(self, transfer: Transfer) -> float:
        """repeats alpha + share B / beta, where ``share`` is 1/n if it is not given: even for all workers. Where links
        differ, and it is known who is whose neighbour, the clock asks ``Rates.gossip`` instead."""
        pace, workers, wire, repeats, _, share = transfer
        return repeats * pace.latency / 1e3 + wire * (share or 1 / workers) / pace.slower

    def wire(self, degrees: Sequence[int], sizes: Sequence[int]) -> int:
        """Bytes on all links for the messages of these workers, of ``sizes`` bytes each."""
        return sum(degree * size for degree, size in zip(degrees, sizes, strict=True))
