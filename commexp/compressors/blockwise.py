"""Codes of a few bits for each entry, and a scale for each block of entries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from commexp.compressors.base import Compressor, CorruptMessageError, Message
from commexp.compressors.counter import draws
from commexp.compressors.pieces import pieces

SMALLEST_BLOCK, LARGEST_BLOCK = 8, 4096
LARGEST = torch.finfo(torch.bfloat16).max
SMALLEST = 2.0**-110
STRETCH = 1 + 2**-7  # a scale is at most so many times what it was before it was rounded up


class Blockwise(Compressor):
    """C(a)_j = c + r v(code_j): ``bits`` = b bits for each entry, which name one of 2^b levels v, and for each block of
    ``block`` entries r, the half width of the range of its levels, and, where ``centred``, c, the range's centre.

    r and c travel as bfloat16, 2 bytes each. r is rounded up, so that what lay within the range still does, and codes
    are chosen for the r and c that travel. The last block of a vector may be shorter. Codes are packed densely, each
    block by itself: of m entries, in p = ceil(m b / 8) bytes, entry i has b bits of byte i mod p, from bit b (i // p)
    on. So messages can be cut where a block begins. Entries are encoded as float32; magnitudes beyond 3.39e38 are
    taken for that, and an r below 2^-110 for zero.

    Derived classes set ``block`` and ``bits`` and implement ``codes`` and ``values``. Raises ValueError for a block
    that is no multiple of 8 or out of 8 to 4096, and for NaN and infinity.
    """

    block: int
    bits: int
    centred = False

    def __post_init__(self) -> None:
        if not SMALLEST_BLOCK <= self.block <= LARGEST_BLOCK or self.block % 8:
            within = f"{SMALLEST_BLOCK} to {LARGEST_BLOCK}"
            raise ValueError(f"block={self.block}: must be a multiple of 8, {within}; 256 is usual")

    @abstractmethod
    def codes(self, x: Tensor, scale: Tensor, noise: Tensor | None) -> Tensor:
        """x - c, float32 [..., m], and r, float32 [..., 1] -> codes, in the low bits of integers. ``noise``: int16
        [..., m], uniform, of a codec that draws random numbers."""

    @abstractmethod
    def values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """v(code), at most 1 in magnitude, for uint8 codes. Raises CorruptMessageError for a code without a value."""

    def spread(self, x: Tensor, largest: Tensor) -> tuple[Tensor, Tensor | None]:
        """r [...] and c [...], bfloat16, of blocks x, float32 [..., m], with these largest magnitudes [...]."""
        return rounded_up(largest), None

    @property
    def grain(self) -> int:
        return self.block

    def encode(self, a: Tensor) -> Message:
        return self.encode_stretch(a)

    def requantise(self, total: Tensor, messages: Message, start: int) -> Message:
        return self.encode_stretch(total[None], start)

    def encode_stretch(self, a: Tensor, start: int = 0, seeds: Sequence[int] = ()) -> Message:
        """The messages of a [W, m], the entries from ``start`` on of longer vectors. ``seeds``: of each worker's random
        draws, if any are drawn; they belong to places in the whole vector."""
        workers, dim = a.shape
        codes = torch.empty(workers, self._bytes(dim), dtype=torch.uint8, device=a.device)
        scales = torch.empty(workers, -(-dim // self.block), dtype=torch.bfloat16, device=a.device)
        centres = torch.empty_like(scales)
        for rows, begin, piece in self._pieces(a):
            x, largest = _sound(piece)
            scale, centre = self.spread(x, largest)
            blocks = slice(begin // self.block, begin // self.block + scale.shape[1])
            scales[rows, blocks] = scale
            if centre is not None:
                centres[rows, blocks] = centre
                x = x - centre.float()[..., None]
            noise = None
            if seeds:
                places = start + begin, start + begin + x[0].numel()
                drawn = [draws(seed, *places, a.device) for seed in seeds[rows]]
                noise = (drawn[0] if len(drawn) == 1 else torch.stack(drawn)).view(x.shape)
            packed = packed_by_block(self.codes(x, scale.float()[..., None], noise), self.bits).flatten(1)
            codes[rows, self._bytes(begin) : self._bytes(begin) + packed.shape[1]] = packed
        buffers = {"codes": codes, "scales": scales}
        if self.centred:
            buffers["centres"] = centres
        return Message(buffers, dim, a.dtype, 8.0 * workers * self.payload(dim, a.element_size()), self)

    def _bytes(self, count: int) -> int:
        """Of the codes of the first entries."""
        return (count * self.bits + 7) // 8

    def _pieces(self, a: Tensor) -> Iterator[tuple[slice, int, Tensor]]:
        """Parts [w, k, block] of a [W, J] and then [w, 1, rest], views that together are all of it: whose rows they
        are, and at which entry they begin."""
        whole = a.shape[1] // self.block * self.block
        for rows, columns in pieces(a[:, :whole], self.block):
            yield rows, columns.start, view_by(a[rows, columns], (columns.stop - columns.start) // self.block)
        for rows, _ in pieces(a[:, whole:], self.block):
            yield rows, whole, a[rows, None, whole:]

    def decode(self, message: Message) -> Tensor:
        dim, dtype = message.dim, message.dtype
        count = -(-dim // self.block)
        codes = message.buffer("codes", torch.uint8, self._bytes(dim))
        scales = message.buffer("scales", torch.bfloat16, count)
        if not bool(((scales >= 0) & scales.isfinite()).all()):
            raise CorruptMessageError("scales: one is negative, infinite or no number")
        centres = message.buffer("centres", torch.bfloat16, count) if self.centred else None
        if centres is not None and not bool(centres.isfinite().all()):
            raise CorruptMessageError("centres: one is infinite or no number")
        out = torch.empty(message.workers, dim, dtype=dtype, device=codes.device)
        for rows, begin, piece in self._pieces(out):
            shape, first = piece.shape, self._bytes(begin)
            width = self._bytes(shape[2])
            packed = view_by(codes[rows, first : first + shape[1] * width], shape[1])
            each = unpacked_by_block(packed, shape[2], self.bits)
            blocks = slice(begin // self.block, begin // self.block + shape[1])
            torch.mul(self.values(each, dtype), scales[rows, blocks, None].to(dtype), out=piece)
            if centres is not None:
                piece.add_(centres[rows, blocks, None].to(dtype))
        return out

    def payload(self, dim: int, itemsize: int) -> int:
        return self._bytes(dim) + (4 if self.centred else 2) * -(-dim // self.block)

    def cut(self, message: Message, bounds: Sequence[int]) -> list[Message]:
        stretches = []
        for a, b in pairwise(bounds):
            blocks = slice(a // self.block, -(-b // self.block))
            own = {name: x[:, blocks] for name, x in message.buffers.items() if name != "codes"}
            own = {"codes": message.buffers["codes"][:, self._bytes(a) : self._bytes(b)], **own}
            stretches.append(replace(message, buffers=own, dim=b - a))
        return stretches


def view_by(x: Tensor, count: int) -> Tensor:
    """[..., count m] -> [..., count, m]."""
    return x.view(*x.shape[:-1], count, -1)


def _sound(piece: Tensor) -> tuple[Tensor, Tensor]:
    """[..., m] as float32, within the range of bfloat16, and the largest magnitudes [...]. Raises ValueError."""
    largest = torch.maximum(piece.amax(-1), piece.amin(-1).neg_())
    top = float(largest.max())
    if not top < float("inf"):
        raise ValueError("a: holds NaN or infinity, which has no level; see on_nonfinite")
    if top > LARGEST:
        piece, largest = piece.clamp(-LARGEST, LARGEST), largest.clamp(max=LARGEST)
    return piece.float(), largest.float()


def rounded_up(x: Tensor) -> Tensor:
    """float32 from 0 to LARGEST -> the next bfloat16 that is not less; zero below SMALLEST."""
    narrow = (x.view(torch.int32) + 0xFFFF).bitwise_right_shift_(16).to(torch.int16).view(torch.bfloat16)
    return narrow.masked_fill_(x < SMALLEST, 0.0)


def packed_by_block(codes: Tensor, bits: int) -> Tensor:
    """Integers [..., m] below 2^bits in their low byte, ``bits`` = 1, 2, 4 or 8 -> uint8 [..., p = ceil(m bits / 8)]:
    entry i is in byte i mod p."""
    per_byte = 8 // bits
    m = codes.shape[-1]
    if m % per_byte:
        codes = torch.nn.functional.pad(codes, (0, -m % per_byte))
    each = view_by(codes, per_byte)
    packed = each[..., 0, :].clone() if per_byte > 1 else each[..., 0, :]
    for place in range(1, per_byte):
        packed.add_(each[..., place, :], alpha=1 << place * bits)
    return packed.to(torch.uint8)


def unpacked_by_block(packed: Tensor, m: int, bits: int) -> Tensor:
    """The inverse: uint8 [..., p] -> uint8 [..., m]. Raises CorruptMessageError for bits behind the last code."""
    if bits == 8:
        return packed
    per_byte = 8 // bits
    each = packed.new_empty(*packed.shape[:-1], per_byte, packed.shape[-1])
    for place in range(per_byte):
        torch.bitwise_right_shift(packed, place * bits, out=each[..., place, :])
    codes = each.bitwise_and_((1 << bits) - 1).flatten(-2)
    if bool(codes[..., m:].any()):
        raise CorruptMessageError("codes: bits are set behind the last one")
    return codes[..., :m]
