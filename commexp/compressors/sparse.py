"""Messages of k values and their indices: shared by every compressor that picks entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

import torch
from torch import Tensor

from commexp.compressors.base import Compressor, Message, log2_binomial


def index_dtype(dim: int) -> torch.dtype:
    """The narrowest integer type that can name J = ``dim`` places: 1, 2 or 4 bytes."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if dim - 1 <= torch.iinfo(dtype).max:
            return dtype
    raise ValueError(f"dim={dim}: more than 2^31 entries cannot be named by a 32-bit index; compress layer by layer")


@dataclass
class Sparse(Compressor):
    """k of J entries. ``k``: a float in (0, 1] is a ratio of J (rounded, at least one entry), an int a count.

    A message holds ``values`` [W, k] of the vector's type and ``indices`` [W, k] of the narrowest integer type.
    Raises ValueError if k is no such number, or more than J.
    """

    k: Union[int, float] = 0.01  # noqa: UP007  (OmegaConf reads this spelling on every Python we support)

    def __post_init__(self) -> None:
        count = isinstance(self.k, int) and not isinstance(self.k, bool)
        if not (self.k >= 1 if count else isinstance(self.k, float) and 0 < self.k <= 1):
            raise ValueError(
                f"k={self.k}: not a share of the entries; give a ratio in (0, 1] such as 0.01, "
                "or a whole number of entries from 1 up"
            )

    def entries(self, dim: int) -> int:
        """How many of J = ``dim`` entries are sent."""
        if isinstance(self.k, float):
            return max(1, round(self.k * dim))
        if self.k > dim:
            raise ValueError(f"k={self.k}: more entries than the {dim} parameters; give at most {dim}")
        return self.k

    def pack(self, a: Tensor, chosen: Tensor) -> Message:
        """Message of the entries ``chosen`` [W, k] (int64) of ``a`` [W, J]."""
        k, dim = chosen.shape[1], a.shape[1]
        buffers = {"values": a.gather(1, chosen), "indices": chosen.to(index_dtype(dim))}
        bits = log2_binomial(dim, k) + 8.0 * k * a.element_size()
        return Message(buffers, dim, a.dtype, bits, self)

    def payload(self, dim: int, itemsize: int) -> int:
        return self.entries(dim) * (itemsize + index_dtype(dim).itemsize)

    def decode(self, message: Message) -> Tensor:
        values = message.buffers["values"]
        out = values.new_zeros(message.workers, message.dim)
        return out.scatter_(1, message.buffers["indices"].long(), values)

    def reduce(self, message: Message, weights: Tensor) -> Tensor:
        """Adds the entries by index: no [W, J] in between."""
        values = message.buffers["values"] * weights[:, None]
        out = values.new_zeros(message.dim)
        return out.index_add_(0, message.buffers["indices"].flatten().int(), values.flatten())

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        """The values travel unchanged, so what was sent leaves an exact zero behind."""
        return a.scatter_(1, message.buffers["indices"].long(), 0.0)


def answer_size(entries: int, dim: int, itemsize: int) -> tuple[int, float]:
    """(bytes, bits of information) of a vector with so many non-zeros, sent as entries or dense: the smaller each."""
    nbytes = min(entries * (itemsize + index_dtype(dim).itemsize), dim * itemsize)
    return nbytes, min(log2_binomial(dim, entries) + 8.0 * entries * itemsize, 8.0 * dim * itemsize)
