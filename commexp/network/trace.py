"""A network's bandwidth and latency over time, as they were recorded."""

from __future__ import annotations

import hashlib
import math
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from commexp.files import Listing, number


@dataclass(frozen=True, eq=False)
class BandwidthTrace:
    """From second ``starts``[i] on, of m rows: ``bandwidth``[i] in Mbit/s, ``latency``[i] in ms. The last row holds for
    as long as the one before it; then the first one follows again, ``period`` seconds after it began. One row holds
    for ever."""

    starts: np.ndarray
    bandwidth: np.ndarray
    latency: np.ndarray

    @property
    def period(self) -> float:
        return float(2 * self.starts[-1] - self.starts[-2]) if len(self.starts) > 1 else 1.0

    @property
    def digest(self) -> str:
        """16 hex digits of BLAKE2b of the numbers."""
        content = np.stack([self.starts, self.bandwidth, self.latency]).astype("<f8").tobytes()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    def faster(self, factor: float) -> BandwidthTrace:
        """The same with so many times the bandwidth."""
        return BandwidthTrace(self.starts, self.bandwidth * factor, self.latency)

    def latency_at(self, moments: np.ndarray) -> np.ndarray:
        """In ms, at each of the moments."""
        return np.asarray(self.latency[self._row(np.mod(moments, self.period))])

    def carried(self, moments: np.ndarray) -> np.ndarray:
        """The integral of the bandwidth from second 0 to each of the moments, in Mbit."""
        whole, rest = np.divmod(moments, self.period)
        row = self._row(rest)
        ends = self._ends
        return np.asarray(whole * ends[-1] + ends[row] - (self._until[row] - rest) * self.bandwidth[row])

    def moment(self, carried: np.ndarray) -> np.ndarray:
        """The inverse: the first moment by which so much above 0 has been carried."""
        ends = self._ends
        whole = np.maximum(np.ceil(carried / ends[-1]) - 1, 0)
        rest = np.minimum(carried - whole * ends[-1], ends[-1])
        row = np.searchsorted(ends, rest)  # the first row within which so much is reached, whose bandwidth is not 0
        left = np.divide(ends[row] - rest, self.bandwidth[row], out=np.zeros(row.shape), where=self.bandwidth[row] > 0)
        return np.asarray(whole * self.period + self._until[row] - left)

    def _row(self, rest: np.ndarray) -> np.ndarray:
        """Of moments within the first period."""
        return np.searchsorted(self.starts, rest, side="right") - 1

    @cached_property
    def _until(self) -> np.ndarray:
        """When each row of the first period ends."""
        return np.append(self.starts[1:], self.period)

    @cached_property
    def _ends(self) -> np.ndarray:
        """What has been carried when each row of the first period ends."""
        return np.cumsum((self._until - self.starts) * self.bandwidth)


class TraceFile(Listing):
    key: ClassVar[str] = "trace"


def read_trace(path: str) -> BandwidthTrace:
    """A row a line: the second from which on it holds, Mbit/s, ms; the first one from second 0 on, the others each
    later than the one before. Empty lines and comments (from # on) are passed over. Raises ValueError with the number
    of the line for anything else."""
    file = TraceFile(path)
    rows = array("d"), array("d"), array("d")
    for line, words in file.lines():
        numbers = [value for word in words if (value := number(word)) is not None and 0 <= value < math.inf]
        given = f"line {line}: {' '.join(words)[:60]!r}"
        right = "seconds, Mbit/s and ms, such as 0 100 20"
        if len(words) != 3 or len(numbers) != 3:
            raise file.bad(f"{given} is not three numbers of 0 or more", right)
        start = numbers[0]
        if not rows[0] and start != 0:
            raise file.bad(f"{given} comes first, but says nothing of what is before", "a first line from second 0 on")
        if rows[0] and start <= rows[0][-1]:
            raise file.bad(f"{given} is not later than the line before", "lines in the order of their seconds")
        for column, value in zip(rows, numbers, strict=True):
            column.append(value)
    if not rows[0]:
        raise file.bad("is empty", "a file with seconds, Mbit/s and ms, one row a line")
    if not any(rows[1]):
        raise file.bad("its bandwidth is always 0", "a line with more")
    return BandwidthTrace(*(np.array(column) for column in rows))
