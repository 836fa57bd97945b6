"""What an exchange puts on the links, from how it is carried out.

n workers, S_i bytes of payload each, A bytes of aggregate; the totals below are over all links.

    all_reduce (ring)   each worker forwards 2 (n-1)/n S                    ->  2 (n-1) S
    all_gather          each message reaches n-1 others                     ->  (n-1) sum_i S_i
    server              it lives with worker 0: n-1 messages go up,
                        and the aggregate comes down n-1 times              ->  (n-1) (S + A)
    two_phase           every worker owns a stretch of the vector: it gets
                        the others' messages for it, adds them up, and
                        sends the sum to the n-1 others                     ->  (n-1)/n sum_i S_i + (n-1) A
    gossip              each message goes to the worker's neighbours        ->  sum_i degree_i S_i
"""

from __future__ import annotations

from dataclasses import dataclass

from commexp.compressors import Compressor

EXCHANGES = ("all_reduce", "all_gather", "server", "two_phase")


def check_exchange(exchange: str) -> None:
    """Raises ValueError for a name that is neither ``auto`` nor an exchange."""
    if exchange not in ("auto", *EXCHANGES):
        raise ValueError(f"exchange={exchange}: unknown; give auto, {', '.join(EXCHANGES)}")


def check_carrier(codec: Compressor, exchange: str) -> None:
    """Raises ValueError for an unknown exchange, or one that cannot carry this compressor's messages."""
    check_exchange(exchange)
    if exchange == "all_reduce" and not codec.sums:
        raise ValueError(
            f"exchange=all_reduce: messages of {codec.name} cannot be added on the way; give all_gather or server"
        )
    if exchange == "two_phase" and not serves_two_phase(codec):
        reason = "sum, so an all-reduce is two-phase already" if codec.sums else "cannot be cut into stretches"
        raise ValueError(f"exchange=two_phase: messages of {codec.name} {reason}; give auto or server")


def serves_two_phase(codec: Compressor) -> bool:
    return codec.splittable and not codec.sums


def wire_share(exchange: str, workers: int, worker: int, size: int) -> int:
    """Bytes on all links for the message of ``size`` bytes of one worker; shares of equal messages add up to the
    formula, to the byte."""
    if exchange == "all_reduce":
        total = 2 * (workers - 1) * size
        return (worker + 1) * total // workers - worker * total // workers
    if exchange == "all_gather":
        return (workers - 1) * size
    if exchange == "server":
        return size if worker else 0
    raise ValueError(f"exchange={exchange}: has no share for each worker; give one of {', '.join(EXCHANGES)}")


@dataclass(frozen=True)
class Choice:
    """The exchange that serves a compressor, and what each possible one would put on the links in a round: bytes for
    messages of the declared size, and for the largest aggregate where that travels."""

    exchange: str
    costs: dict[str, int]

    def __str__(self) -> str:
        others = ", ".join(f"{name} {cost:,}" for name, cost in self.costs.items() if name != self.exchange)
        cost = f"{self.costs[self.exchange]:,} bytes a round on the links at most"
        return f"exchange={self.exchange}: {cost}" + (f" ({others})" if others else "")


def choose(codec: Compressor, exchange: str, workers: int, dim: int, itemsize: int) -> Choice:
    """``auto`` is the exchange with the fewest bytes on the links; a codec whose messages vary in size is gathered.
    Raises ValueError as ``check_carrier`` does."""
    check_carrier(codec, exchange)
    up, down = codec.payload(dim, itemsize), codec.aggregate_payload(dim, itemsize, workers)
    if codec.sums:
        costs = {"all_reduce": 2 * (workers - 1) * up}
    else:
        costs = {"all_gather": (workers - 1) * workers * up}
        if serves_two_phase(codec):
            costs["two_phase"] = (workers - 1) * (up + down)
    if exchange == "auto":
        first = next(iter(costs))
        return Choice(first if codec.variable_size else min(costs, key=costs.__getitem__), costs)
    costs["all_gather"] = (workers - 1) * workers * up
    costs["server"] = (workers - 1) * (up + (up if codec.sums else down))
    return Choice(exchange, costs)
