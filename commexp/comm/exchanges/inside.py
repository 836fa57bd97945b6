"""The exchanges inside an island: its members add up, and what its leader has received goes to all of them."""

from __future__ import annotations

from commexp.comm.exchanges.all_reduce import AllReduce
from commexp.comm.exchanges.base import Bytes, Exchange
from commexp.comm.exchanges.broadcast import Broadcast


class InsideAllReduce(Exchange):
    """A dense all-reduce among the m members of each island, on a ring of the links inside: 2 (m-1) S bytes an island,
    in 2 (m-1) hops. All islands do it at the same time."""

    name = "inside_all_reduce"
    inside = True

    def hops(self, workers: int) -> int:
        return 2 * (workers - 1)

    def load(self, size: int, members: int, islands: int) -> Bytes:
        """Of vectors of ``size`` bytes of all members of so many islands."""
        sent = islands * members * size
        return Bytes(sent, sent, islands * AllReduce().cost(members, size, size))


class InsideBroadcast(Broadcast):
    """A vector of the leader goes to the other members of its island, down a tree of the links inside: (m-1) S bytes an
    island. All islands do it at the same time."""

    name = "inside_broadcast"
    inside = True

    def load(self, size: int, members: int, islands: int) -> Bytes:
        """Of a vector of ``size`` bytes in each of so many islands."""
        return Bytes(islands * size, islands * size, islands * self.wire(size, members))
