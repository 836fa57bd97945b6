"""No compression: the vector as it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.compressors.base import Compressor, Message, weighted_sum


@dataclass
class NoCompression(Compressor):
    """C(a) = a: J numbers at their own width (fp32: 4 J bytes). The dense baseline; messages sum."""

    sums = True
    unbiased = True
    entrywise = True

    def encode(self, a: Tensor) -> Message:
        return Message({"values": a}, a.shape[1], a.dtype, 8.0 * a.numel() * a.element_size(), self)

    def decode(self, message: Message) -> Tensor:
        return message.buffer("values", message.dtype, message.dim)

    def total(self, message: Message, weights: Tensor, in_order: bool = False) -> Tensor:
        return weighted_sum(self.decode(message), weights, in_order)

    def payload(self, dim: int, itemsize: int) -> int:
        return dim * itemsize

    def delta(self, dim: int) -> float:
        return 1.0

    def omega(self, dim: int) -> float:
        return 0.0
