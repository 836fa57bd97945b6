"""The exchange: collectives over workers, their cost in bytes, the ledger that books them."""

from commexp.comm.communicator import Communicator
from commexp.comm.cost import EXCHANGES, check_carrier, choose
from commexp.comm.ledger import PHASES, Entry, Ledger
from commexp.comm.links import Links, LostProcessError, Processes

__all__ = [
    "EXCHANGES",
    "PHASES",
    "Communicator",
    "Entry",
    "Ledger",
    "Links",
    "LostProcessError",
    "Processes",
    "check_carrier",
    "choose",
]
