"""Signs, with one scale for a vector, and the vote of the majority."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError, Message
from commexp.compressors.bits import Bits
from commexp.compressors.wire import pack_bits, packed_bytes, unpack_bits


@dataclass
class Sign(Bits):
    """C(a) = s sign(a), with sign(0) = 1: one bit an entry, eight to a byte, and s.

    ``scaled``: s = ||a||_1 / J travels with the signs; a contraction with delta = ||a||_1^2 / (J ||a||_2^2) >= 1/J.
    Else s = 1 and nothing but the signs travels.
    ``vote``: the aggregate is (sum_n w_n s_n) sign(sum_n w_n sign(a_n)), the majority's sign (0 where it is a tie),
    instead of the mean sum_n w_n s_n sign(a_n).
    Source: Bernstein et al., signSGD, arXiv 1802.04434; with scale: Karimireddy et al., arXiv 1901.09847.
    """

    scaled: bool = True
    vote: bool = False

    def __post_init__(self) -> None:
        self.linear = not self.vote

    def encode(self, a: Tensor) -> Message:
        buffers = {"signs": pack_bits(a < 0)}
        if self.scaled:
            buffers["scale"] = torch.linalg.vector_norm(a, 1, dim=1, keepdim=True, dtype=torch.float64)
            buffers["scale"] = buffers["scale"].div_(a.shape[1]).to(a.dtype)
        elif not bool(torch.isfinite(a.abs().amax())):
            raise ValueError("a: holds NaN or infinity, which would be hidden; see on_nonfinite")
        bits = len(a) * (a.shape[1] + (8.0 * a.element_size() if self.scaled else 0.0))
        return Message(buffers, a.shape[1], a.dtype, bits, self)

    def _read(self, message: Message) -> tuple[Tensor, Tensor]:
        """Signs as numbers [W, J] and scales [W, 1]."""
        packed = message.buffer("signs", torch.uint8, packed_bytes(message.dim, 1))
        signs = unpack_bits(packed, message.dim).to(message.dtype).mul_(-2).add_(1)
        if not self.scaled:
            return signs, signs.new_ones(message.workers, 1)
        scale = message.buffer("scale", message.dtype, 1)
        if bool((scale < 0).any()):
            raise CorruptMessageError("scale: is negative")
        return signs, scale

    def decode(self, message: Message) -> Tensor:
        signs, scale = self._read(message)
        return signs.mul_(scale)

    def summands(self, message: Message) -> Tensor:
        """With a vote the signs [W, J] and the scale are added up apart: [W, J + 1]."""
        return torch.cat(self._read(message), dim=1) if self.vote else self.decode(message)

    def summand_count(self, message: Message) -> int:
        return message.dim + 1 if self.vote else message.dim

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        return total[:-1].sign() * total[-1] if self.vote else total

    def payload(self, dim: int, itemsize: int) -> int:
        return packed_bytes(dim, 1) + (itemsize if self.scaled else 0)

    def aggregate_payload(self, dim: int, itemsize: int, workers: int) -> int:
        """The aggregate of a vote is signs, that of a mean is numbers."""
        return itemsize + -(-dim // 5) if self.vote else dim * itemsize

    def delta(self, dim: int) -> float | None:
        return 1 / dim if self.scaled else None
