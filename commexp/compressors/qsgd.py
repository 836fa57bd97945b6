"""QSGD: stochastic rounding to s levels of a bucket's norm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError, Message
from commexp.compressors.elias import gamma_decode, gamma_encode
from commexp.compressors.pieces import pieces
from commexp.compressors.stochastic import Stochastic, next_uniform
from commexp.compressors.wire import (
    in_blocks,
    pack_bits,
    pack_levels,
    packed_bytes,
    unpack_bits,
    unpack_levels,
)

CODINGS = ("fixed", "elias")


@dataclass
class QSGD(Stochastic):
    """C(a)_j = ||v||_2 sign(a_j) l_j / s, where v is a_j's bucket of ``bucket`` entries and s = ``levels``:

        l_j = floor(r) or floor(r) + 1, r = s |a_j| / ||v||_2, the upper one with probability r - floor(r)

    Unbiased; E||C(v) - v||^2 <= min(d/s^2, sqrt(d)/s) ||v||^2 for a bucket of d entries, and <= d/(4 s^2) ||v||^2, as
    rounding to a grid of ||v||/s has variance ||v||^2/(4 s^2) at most: it contracts where d < 4 s^2.
    ``coding``: fixed (sign and level in ceil(log2(2 s + 1)) bits, and each bucket's norm) or elias (the gaps between
    the non-zeros and their levels as Elias gamma codes, a bit for each sign: the size follows the data).
    Source: Alistarh et al., QSGD, arXiv 1610.02132, sections 3.1 and 3.2. Raises ValueError for levels out of 1 to
    127, a bucket below 1, or another coding.
    """

    levels: int = 7
    bucket: int = 512
    coding: str = "fixed"

    unbiased = True

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 127:
            raise ValueError(f"levels={self.levels}: out of range; give 1 to 127")
        if self.bucket < 1:
            raise ValueError(f"bucket={self.bucket}: must not be less than 1; 512 is usual")
        if self.coding not in CODINGS:
            raise ValueError(f"coding={self.coding}: unknown; give {' or '.join(CODINGS)}")
        self.variable_size = self.coding == "elias"
        self.contracting = f"bucket={2 * self.levels**2}" if self.delta(self.bucket) is None else ""
        self._bits = math.ceil(math.log2(2 * self.levels + 1))

    def encode(self, a: Tensor) -> Message:
        workers, dim = a.shape
        norms = torch.empty(workers, -(-dim // self.bucket), dtype=torch.float64, device=a.device)
        for rows, columns, buckets in self._pieces(a):
            norms[rows, buckets] = torch.linalg.vector_norm(
                in_blocks(a[rows, columns], self.bucket), dim=2, dtype=torch.float64
            )
        if not bool(torch.isfinite(norms).all()):
            raise ValueError("a: holds NaN or infinity, or numbers whose norm overflows; see on_nonfinite")
        norms = norms.clamp_(max=torch.finfo(a.dtype).max).to(a.dtype)
        unit, generators = torch.where(norms == 0, 1.0, norms), self.generators(a)
        width = packed_bytes(dim, self._bits) if self.coding == "fixed" else dim
        levels = torch.empty(
            workers, width, dtype=torch.uint8 if self.coding == "fixed" else torch.int16, device=a.device
        )
        for rows, columns, buckets in self._pieces(a):
            x = a[rows, columns]
            scaled = in_blocks(x.abs(), self.bucket).div_(unit[rows, buckets, None]).flatten(1)[:, : x.shape[1]]
            level = scaled.mul_(self.levels).add_(next_uniform(generators[rows], x)).floor_().clamp_(max=self.levels)
            signed = torch.where(x < 0, -level, level)
            if self.coding == "fixed":
                first, last = (packed_bytes(c, self._bits) for c in (columns.start, columns.stop))
                levels[rows, first:last] = pack_levels(signed.add_(self.levels).to(torch.uint8), self._bits)
            else:
                levels[rows, columns] = signed.to(torch.int16)
        ideal = workers * (dim * math.log2(2 * self.levels + 1) + 8.0 * norms.shape[1] * a.element_size())
        if self.coding == "fixed":
            return Message({"levels": levels, "norms": norms}, dim, a.dtype, ideal, self)
        coded = [self._elias(row.long()) for row in levels]
        lengths = {"code": [len(row) for row in coded]}
        code = torch.nn.utils.rnn.pad_sequence(coded, batch_first=True)
        message = Message({"code": code, "norms": norms}, dim, a.dtype, 0.0, self, lengths)
        return Message(message.buffers, dim, a.dtype, min(ideal, 8.0 * message.nbytes), self, lengths)

    def _pieces(self, a: Tensor) -> Iterator[tuple[slice, slice, slice]]:
        """Rows, columns and buckets of parts of a [W, J], which begin where buckets and bytes do."""
        for rows, columns in pieces(a, math.lcm(8, self.bucket)):
            yield rows, columns, slice(columns.start // self.bucket, -(-columns.stop // self.bucket))

    def _elias(self, signed: Tensor) -> Tensor:
        """One worker's bytes: the number of non-zeros (4), then gaps, levels and signs as one string of bits."""
        places = signed.nonzero()[:, 0]
        values = signed[places]
        gaps = torch.diff(places, prepend=places.new_tensor([-1]))
        bits = torch.cat([gamma_encode(gaps), gamma_encode(values.abs()), values < 0])
        count = torch.tensor([len(places)], dtype=torch.int32, device=signed.device).view(torch.uint8)
        return torch.cat([count, pack_bits(bits[None])[0]])

    def _from_elias(self, code: Tensor, dim: int) -> Tensor:
        """The inverse: int64 [J]. Raises CorruptMessageError."""
        if len(code) < 4:
            raise CorruptMessageError(f"code: of {len(code)} bytes; must be 4 or more")
        count = int(code[:4].clone().view(torch.int32))
        if not 0 <= count <= dim:
            raise CorruptMessageError(f"code: {count} non-zeros of {dim}")
        bits = unpack_bits(code[None, 4:], 8 * (len(code) - 4))[0]
        gaps, read = gamma_decode(bits, count)
        if count and int(gaps.max()) > dim:
            raise CorruptMessageError("code: a gap leads out of the vector")  # and may not be added up
        values, more = gamma_decode(bits[read:], count)
        negative = bits[read + more :]
        if packed_bytes(read + more + count, 1) != len(code) - 4 or bool(negative[count:].any()):
            raise CorruptMessageError("code: is longer or shorter than what it holds")
        places = torch.cumsum(gaps, 0) - 1
        if count and (int(places[-1]) >= dim or int(values.max()) > self.levels):
            raise CorruptMessageError("code: a place or a level is out of range")
        signed = torch.zeros(dim, dtype=torch.int64, device=code.device)
        signed[places] = torch.where(negative[:count], -values, values)
        return signed

    def decode(self, message: Message) -> Tensor:
        dim = message.dim
        norms = message.buffer("norms", message.dtype, -(-dim // self.bucket))
        if bool((norms < 0).any()):
            raise CorruptMessageError("norms: one is negative")
        if self.coding == "fixed":
            packed = message.buffer("levels", torch.uint8, packed_bytes(dim, self._bits))
            codes = unpack_levels(packed, dim, self._bits)
            if bool((codes > 2 * self.levels).any()):
                raise CorruptMessageError(f"levels: one is above {2 * self.levels}")
            signed = codes.to(message.dtype) - self.levels
        else:
            message.buffer("code", torch.uint8)
            if "code" not in message.lengths:
                raise CorruptMessageError("code: no lengths")
            rows = [self._from_elias(message.row("code", w), dim) for w in range(message.workers)]
            signed = torch.stack(rows).to(message.dtype)
        return (in_blocks(signed / self.levels, self.bucket) * norms[..., None]).flatten(1)[:, :dim]

    def payload(self, dim: int, itemsize: int) -> int:
        """With Elias codes the most it can be: a gap of g takes at most 2 g - 1 bits, and gaps add up to J."""
        norms = -(-dim // self.bucket) * itemsize
        if self.coding == "fixed":
            return packed_bytes(dim, self._bits) + norms
        each = 1 + 2 * int(math.log2(self.levels)) + 1
        return 4 + packed_bytes(2 * dim + dim * each, 1) + norms

    def delta(self, dim: int) -> float | None:
        variance = self.bucket / (2 * self.levels) ** 2
        return 1 - variance if variance < 1 else None

    def omega(self, dim: int) -> float:
        d, s = min(dim, self.bucket), self.levels
        return min(d / (2 * s) ** 2, math.sqrt(d) / s)
