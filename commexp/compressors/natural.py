"""Natural compression: powers of two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError, Message
from commexp.compressors.pieces import pieces
from commexp.compressors.stochastic import Stochastic, next_uniform
from commexp.compressors.wire import pack_bits, packed_bytes, unpack_bits

MANTISSA = 23
LARGEST = 254  # exponent field of float32's last binade


@dataclass
class Natural(Stochastic):
    """C(a)_j = sign(a_j) 2^e or sign(a_j) 2^(e+1), 2^e <= |a_j| < 2^(e+1), the upper with probability |a_j|/2^e - 1.

    Unbiased with E||C(a)||^2 <= (9/8) ||a||^2, so that it contracts with delta = 7/8: what is left of a float32 is its
    sign and exponent, 9 bits. The mantissa, read as an integer, is the probability: a random one is added and carries
    into the exponent. Entries travel as float32 (wider types are rounded to it first); beyond 2^127 the result is
    2^127.
    Source: Horvath et al., Natural Compression for Distributed Deep Learning, arXiv 1905.10988, definition 1.
    """

    unbiased = True

    def encode(self, a: Tensor) -> Message:
        if not bool(torch.isfinite(torch.maximum(a.amax(), -a.amin()))):
            raise ValueError("a: holds NaN or infinity, which have no exponent; see on_nonfinite")
        workers, dim = a.shape
        signs = torch.empty(workers, packed_bytes(dim, 1), dtype=torch.uint8, device=a.device)
        exponents = torch.empty(workers, dim, dtype=torch.uint8, device=a.device)
        limit, generators = torch.finfo(torch.float32).max, self.generators(a)
        for rows, columns in pieces(a):
            piece = a[rows, columns]
            signs[rows, columns.start // 8 : packed_bytes(columns.stop, 1)] = pack_bits(piece < 0)
            bits = (piece if a.dtype == torch.float32 else piece.clamp(-limit, limit).float()).abs().view(torch.int32)
            random = next_uniform(generators[rows], bits.view(torch.float32)).mul_(2.0**MANTISSA)
            bits.add_(random.to(torch.int32)).bitwise_right_shift_(MANTISSA)
            exponents[rows, columns] = bits.clamp_(max=LARGEST)
        return Message({"signs": signs, "exponents": exponents}, dim, a.dtype, 9.0 * a.numel(), self)

    def decode(self, message: Message) -> Tensor:
        exponents = message.buffer("exponents", torch.uint8, message.dim)
        if bool((exponents > LARGEST).any()):
            raise CorruptMessageError(f"exponents: one is above {LARGEST}")
        negative = unpack_bits(message.buffer("signs", torch.uint8, packed_bytes(message.dim, 1)), message.dim)
        values = (exponents.to(torch.int32) << MANTISSA).view(torch.float32).to(message.dtype)
        return torch.where(negative, -values, values)

    def payload(self, dim: int, itemsize: int) -> int:
        return dim + packed_bytes(dim, 1)

    def delta(self, dim: int) -> float:
        return 7 / 8

    def omega(self, dim: int) -> float:
        return 1 / 8
