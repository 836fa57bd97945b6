"""The exchange: collectives over workers, their cost in bytes, the ledger that books them."""

from commexp.comm.communicator import Communicator, carrier
from commexp.comm.cost import EXCHANGES, peer_wire_bytes
from commexp.comm.ledger import Entry, Ledger

__all__ = ["EXCHANGES", "Communicator", "Entry", "Ledger", "carrier", "peer_wire_bytes"]
