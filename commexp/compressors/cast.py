"""Numbers in a narrower floating-point type."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import Compressor, CorruptMessageError, Message, narrowed


@dataclass
class Cast(Compressor):
    """C(a) = a rounded to nearest in ``narrow``; magnitudes beyond its range become its largest number.

    J numbers of that width; messages sum, and their sum is rounded in its turn. Neither unbiased nor, where small
    numbers vanish, a contraction.
    """

    sums = True
    entrywise = True
    narrow = torch.float32

    def encode(self, a: Tensor) -> Message:
        values = a.to(self.narrow)
        if bool(values.isinf().any()):
            if bool(a.isinf().any()):
                raise ValueError("a: holds infinity, which would be hidden; see on_nonfinite")
            values = narrowed(a, self.narrow)
        return Message({"values": values}, a.shape[1], a.dtype, 8.0 * values.numel() * values.element_size(), self)

    def decode(self, message: Message) -> Tensor:
        values = message.buffer("values", self.narrow, message.dim).to(message.dtype)
        if bool(values.isinf().any()):
            raise CorruptMessageError("values: hold infinity, which no encoder writes")
        return values

    def payload(self, dim: int, itemsize: int) -> int:
        return dim * self.narrow.itemsize
