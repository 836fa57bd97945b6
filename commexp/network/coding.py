"""How long workers encode and decode messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class CodedExchange(Protocol):
    """What the clock asks of a kind of exchange, see comm/exchanges."""

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]: ...


class CodedTraffic(Protocol):
    """One exchange in one direction, as the ledger has it."""

    @property
    def kind(self) -> CodedExchange: ...
    @property
    def direction(self) -> str: ...
    @property
    def workers(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_wire(self) -> int: ...


@dataclass(frozen=True)
class Coding:
    """Seconds in which a worker encodes a message, and decodes one."""

    encode: float = 0.0
    decode: float = 0.0

    def seconds(self, traffic: Iterable[CodedTraffic]) -> float:
        """Of one worker in a round with these exchanges, each of which says how many messages a worker ``coded``."""
        if not (self.encode or self.decode):
            return 0.0
        counts = [entry.kind.coded(entry) for entry in traffic]
        return sum(encoded * self.encode + decoded * self.decode for encoded, decoded in counts)

    @classmethod
    def at_rate(cls, rate: float, coded_bytes: float) -> Coding:
        """Where encoding or decoding a message of a vector of so many bytes goes at ``rate`` GB/s."""
        seconds = coded_bytes / (1e9 * rate)
        return cls(seconds, seconds)


NO_CODING = Coding()
