"""Which exchange carries a compressor's messages."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.comm.exchanges import AGGREGATIONS, Aggregation
from commexp.compressors import Compressor

AUTO = "auto"


def check_exchange(exchange: str) -> None:
    """Raises ValueError for a name that is neither ``auto`` nor an exchange."""
    if exchange not in (AUTO, *AGGREGATIONS):
        raise ValueError(f"exchange={exchange}: unknown; give {AUTO}, {', '.join(AGGREGATIONS)}")


def check_serves(codec: Compressor, exchange: str) -> None:
    """Raises ValueError for an unknown exchange, or one that cannot carry this compressor's messages."""
    check_exchange(exchange)
    if exchange != AUTO:
        AGGREGATIONS[exchange].check(codec)


@dataclass(frozen=True)
class Choice:
    """The exchange that serves a compressor, and what each candidate would put on the links in a round: bytes for
    messages of the declared size, and for the largest aggregate where that travels."""

    exchange: Aggregation
    costs: dict[str, int]

    @property
    def cost(self) -> int:
        return self.costs[self.exchange.name]

    def __str__(self) -> str:
        others = ", ".join(f"{name} {cost:,}" for name, cost in self.costs.items() if name != self.exchange.name)
        cost = f"{self.cost:,} bytes a round on the links at most"
        return f"exchange={self.exchange.name}: {cost}" + (f" ({others})" if others else "")


def choose(codec: Compressor, exchange: str, workers: int, dim: int, itemsize: int) -> Choice:
    """``auto`` is the candidate with the fewest bytes on the links; a codec whose messages vary in size gets the first
    candidate. Raises ValueError as ``check_serves`` does."""
    check_serves(codec, exchange)
    up = codec.payload(dim, itemsize)
    able = [e for e in AGGREGATIONS.values() if (e.candidate(codec) if exchange == AUTO else e.name == exchange)]
    costs = {e.name: e.cost(workers, up, e.aggregate_payload(codec, dim, itemsize, workers)) for e in able}
    chosen = able[0] if codec.variable_size else min(able, key=lambda e: costs[e.name])
    return Choice(chosen, costs)
