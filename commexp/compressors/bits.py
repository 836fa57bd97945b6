"""Messages of one bit an entry and a number or two for the vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from commexp.compressors.base import Compressor, Message
from commexp.compressors.wire import packed_bytes


class Bits(Compressor):
    """Compressors whose messages are ``signs``, packed bits, and buffers that belong to the vector as a whole: every
    shard that is cut out of a message takes those along."""

    def cut(self, message: Message, bounds: Sequence[int]) -> list[Message]:
        signs = message.buffer("signs", message.buffers["signs"].dtype, packed_bytes(message.dim, 1))
        return [
            replace(message, buffers={**message.buffers, "signs": signs[:, a // 8 : packed_bytes(b, 1)]}, dim=b - a)
            for a, b in pairwise(bounds)
        ]
