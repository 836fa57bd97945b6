"""Exchanges among workers, their cost in bytes, and the ledger that counts them."""

from commexp.comm.choice import AUTO, check_serves, choose
from commexp.comm.communicator import ClosingRule, Communicator, DelayedSum, bucket_ends, bucket_size, no_message
from commexp.comm.exchanges import AGGREGATIONS, ALL_GATHER, ALL_REDUCE, EXCHANGES, SERVER, exchange_named
from commexp.comm.frames import bundle, pack_frames, unpack_frames
from commexp.comm.islands import Members, check_spread
from commexp.comm.ledger import PHASES, Entry, Ledger
from commexp.comm.links import Links, LostProcessError, Processes
from commexp.comm.secret import SECRET, is_given, made

__all__ = [
    "AGGREGATIONS",
    "ALL_GATHER",
    "ALL_REDUCE",
    "AUTO",
    "EXCHANGES",
    "PHASES",
    "SECRET",
    "SERVER",
    "ClosingRule",
    "Communicator",
    "DelayedSum",
    "Entry",
    "Ledger",
    "Links",
    "LostProcessError",
    "Members",
    "Processes",
    "bucket_ends",
    "bucket_size",
    "bundle",
    "check_serves",
    "check_spread",
    "choose",
    "exchange_named",
    "is_given",
    "made",
    "no_message",
    "pack_frames",
    "unpack_frames",
]
