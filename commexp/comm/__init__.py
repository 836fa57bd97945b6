"""The exchange: collectives over workers, their cost in bytes, the ledger that books them."""

from commexp.comm.communicator import Communicator
from commexp.comm.coordinator import Coordinator, Remote
from commexp.comm.cost import EXCHANGES, check_carrier, choose
from commexp.comm.exchange import stretch_ends, stretch_of
from commexp.comm.frames import bundle, pack_frames, unpack_frames
from commexp.comm.hub import FAULT, JOINED, LOST, MESSAGE, Hub, Said
from commexp.comm.ledger import PHASES, Entry, Ledger
from commexp.comm.lines import as_bytes, meeting_place, no_port
from commexp.comm.links import Links, LostProcessError, Processes
from commexp.comm.secret import SECRET, is_given, made
from commexp.comm.served import Served
from commexp.comm.spoke import Given, Spoke

__all__ = [
    "EXCHANGES",
    "FAULT",
    "JOINED",
    "LOST",
    "MESSAGE",
    "PHASES",
    "SECRET",
    "Communicator",
    "Coordinator",
    "Entry",
    "Given",
    "Hub",
    "Ledger",
    "Links",
    "LostProcessError",
    "Processes",
    "Remote",
    "Said",
    "Served",
    "Spoke",
    "as_bytes",
    "bundle",
    "check_carrier",
    "choose",
    "is_given",
    "made",
    "meeting_place",
    "no_port",
    "pack_frames",
    "stretch_ends",
    "stretch_of",
    "unpack_frames",
]
