"""The unbiased stochastic sign of 1-bit gradient coding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError, Message
from commexp.compressors.bits import Bits
from commexp.compressors.stochastic import Stochastic
from commexp.compressors.wire import pack_bits, packed_bytes, unpack_bits

BOUNDS = ("max", "fixed")


@dataclass
class OneBit(Bits, Stochastic):
    """C(a) = B q with

        q_j = +1 with probability 1/2 + a_j / (2 B), else -1

    so that E C(a) = a wherever B >= |a_j|, with variance B^2 - a_j^2.
    ``bound``: max (B = max_j |a_j|, which travels with the bits) or fixed (the constant ``B``, known to all: exactly J
    bits; entries beyond it are sent as +-B, with a bias).
    Source: Li and Skoglund, arXiv 2403.14716. Raises ValueError for another bound, or B not positive.
    """

    bound: str = "max"
    B: float = 1.0

    def __post_init__(self) -> None:
        if self.bound not in BOUNDS:
            raise ValueError(f"bound={self.bound}: unknown; give {' or '.join(BOUNDS)}")
        if not self.B > 0:
            raise ValueError(f"B={self.B}: must be positive; give a magnitude that no entry exceeds")
        self.unbiased = self.bound == "max"

    def encode(self, a: Tensor) -> Message:
        largest = a.abs().amax(1, keepdim=True)
        if not bool(torch.isfinite(largest).all()):
            raise ValueError("a: holds NaN or infinity, which would be hidden; see on_nonfinite")
        bound = largest if self.bound == "max" else torch.full_like(largest, self.B)
        # u < 1/2 + a / (2 B)  <=>  (2 u - 1) B < a, which needs no division by a B of zero
        positive = self.uniform(a).mul_(2).sub_(1).mul_(bound) < a
        buffers = {"signs": pack_bits(positive)}
        bits = float(a.numel())
        if self.bound == "max":
            buffers["bound"] = bound
            bits += 8.0 * len(a) * a.element_size()
        return Message(buffers, a.shape[1], a.dtype, bits, self)

    def decode(self, message: Message) -> Tensor:
        packed = message.buffer("signs", torch.uint8, packed_bytes(message.dim, 1))
        signs = unpack_bits(packed, message.dim).to(message.dtype).mul_(2).sub_(1)
        if self.bound == "fixed":
            return signs.mul_(self.B)
        bound = message.buffer("bound", message.dtype, 1)
        if bool((bound < 0).any()):
            raise CorruptMessageError("bound: is negative")
        return signs.mul_(bound)

    def payload(self, dim: int, itemsize: int) -> int:
        return packed_bytes(dim, 1) + (itemsize if self.bound == "max" else 0)

    def omega(self, dim: int) -> float | None:
        """The variance is J B^2 - ||a||^2, B^2 <= ||a||^2."""
        return dim - 1.0 if self.unbiased else None
