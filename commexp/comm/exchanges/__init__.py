"""The exchanges, one file each; a new one is a file here, its import below, and its place in ``EXCHANGES``.

n workers, S_i bytes of payload of worker i, A bytes of aggregate; the bytes are those on all links together, and each
exchange's ``seconds`` says how long they take:

    all_reduce    2 (n-1) S                             messages that sum, on a ring
    all_gather    (n-1) sum_i S_i                       every message reaches every other worker
    server        sum_{i>0} S_i + (n-1) A               messages up to worker 0, the aggregate down
    two_phase     (n-1)/n sum_i S_i + (n-1) A           every worker aggregates one shard of the vector
    quantised_all_reduce    2 (n-1) S                   the same, and encodes what it has added up
    gossip        sum_i degree_i S_i                    to the worker's neighbours
    broadcast     (n-1) S                               one worker's vector to all others
    inside_all_reduce, inside_broadcast                 the same inside islands of workers
"""

from commexp.comm.exchanges.all_gather import AllGather
from commexp.comm.exchanges.all_reduce import AllReduce
from commexp.comm.exchanges.base import Aggregation, Bytes, Exchange
from commexp.comm.exchanges.broadcast import Broadcast
from commexp.comm.exchanges.gossip import GossipExchange
from commexp.comm.exchanges.inside import InsideAllReduce, InsideBroadcast
from commexp.comm.exchanges.quantised_all_reduce import QuantisedAllReduce
from commexp.comm.exchanges.server import ParameterServer
from commexp.comm.exchanges.two_phase import TwoPhase

ALL_REDUCE, ALL_GATHER, SERVER, GOSSIP, BROADCAST = (
    AllReduce(),
    AllGather(),
    ParameterServer(),
    GossipExchange(),
    Broadcast(),
)
INSIDE_ALL_REDUCE, INSIDE_BROADCAST = InsideAllReduce(), InsideBroadcast()

EXCHANGES: dict[str, Exchange] = {
    exchange.name: exchange
    for exchange in (
        ALL_REDUCE,
        ALL_GATHER,
        SERVER,
        TwoPhase(),
        QuantisedAllReduce(),
        GOSSIP,
        BROADCAST,
        INSIDE_ALL_REDUCE,
        INSIDE_BROADCAST,
    )
}
AGGREGATIONS = {name: exchange for name, exchange in EXCHANGES.items() if isinstance(exchange, Aggregation)}

__all__ = [
    "AGGREGATIONS",
    "ALL_GATHER",
    "ALL_REDUCE",
    "BROADCAST",
    "EXCHANGES",
    "GOSSIP",
    "INSIDE_ALL_REDUCE",
    "INSIDE_BROADCAST",
    "SERVER",
    "Aggregation",
    "Bytes",
    "Exchange",
    "exchange_named",
]


def exchange_named(name: str) -> Exchange:
    """Raises ValueError for an unknown name."""
    if name not in EXCHANGES:
        raise ValueError(f"exchange={name}: unknown; give one of {', '.join(EXCHANGES)}")
    return EXCHANGES[name]
