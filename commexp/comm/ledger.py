"""The ledger: what every exchange cost, booked where it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One exchange in one direction, over all workers. The README explains the three byte counts."""

    round: int
    exchange: str
    direction: str  # 'peers', 'up' or 'down'
    workers: int
    bytes_info: float
    bytes_sent: int
    bytes_wire: int


@dataclass
class Ledger:
    """Entries in the order they were booked, and their running totals."""

    round: int = 0
    entries: list[Entry] = field(default_factory=list)
    bytes_info: float = 0.0
    bytes_sent: int = 0
    bytes_wire: int = 0

    def book(self, exchange: str, direction: str, workers: int, info: float, sent: int, wire: int) -> None:
        self.entries.append(Entry(self.round, exchange, direction, workers, info, sent, wire))
        self.bytes_info += info
        self.bytes_sent += sent
        self.bytes_wire += wire

    def totals(self) -> dict[str, float]:
        return {"bytes_info": self.bytes_info, "bytes_sent": self.bytes_sent, "bytes_wire": self.bytes_wire}

    def restore(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Rebuilds the books from the rows of a traffic.csv."""
        self.entries = [Entry(**row) for row in entries]
        self.bytes_info = sum(e.bytes_info for e in self.entries)
        self.bytes_sent = sum(e.bytes_sent for e in self.entries)
        self.bytes_wire = sum(e.bytes_wire for e in self.entries)
