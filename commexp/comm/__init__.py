"""The exchange: collectives over workers, their cost in bytes, the ledger that books them."""

from commexp.comm.communicator import Communicator
from commexp.comm.coordinator import Coordinator, Remote, apart
from commexp.comm.cost import EXCHANGES, check_carrier, choose
from commexp.comm.exchange import stretch_ends, stretch_of
from commexp.comm.frames import bundle, pack_frames
from commexp.comm.ledger import PHASES, Entry, Ledger
from commexp.comm.links import Links, LostProcessError, Processes
from commexp.comm.served import Served

__all__ = [
    "EXCHANGES",
    "PHASES",
    "Communicator",
    "Coordinator",
    "Entry",
    "Ledger",
    "Links",
    "LostProcessError",
    "Processes",
    "Remote",
    "Served",
    "apart",
    "bundle",
    "check_carrier",
    "choose",
    "pack_frames",
    "stretch_ends",
    "stretch_of",
]
