"""The exchange: collectives over workers, their cost in bytes, the ledger that books them."""

from commexp.comm.communicator import Communicator
from commexp.comm.cost import EXCHANGES, check_carrier, choose
from commexp.comm.exchange import stretch_ends, stretch_of
from commexp.comm.frames import bundle, pack_frames, unpack_frames
from commexp.comm.ledger import PHASES, Entry, Ledger
from commexp.comm.links import Links, LostProcessError, Processes
from commexp.comm.secret import SECRET, is_given, made

__all__ = [
    "EXCHANGES",
    "PHASES",
    "SECRET",
    "Communicator",
    "Entry",
    "Ledger",
    "Links",
    "LostProcessError",
    "Processes",
    "bundle",
    "check_carrier",
    "choose",
    "is_given",
    "made",
    "pack_frames",
    "stretch_ends",
    "stretch_of",
    "unpack_frames",
]
