"""Wire formats: how signs, levels and sets of indices become bytes. All functions take [W, n]; rows are workers.

Levels are packed from the lowest bit up, single bits from the highest down as NumPy does it: on the CPU they go
through NumPy, which is several times faster than any composition of torch operations; the bytes are the same.
A set of indices takes the smallest of four formats.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError

LEVELS_PER_WORD = 8  # so many levels of b bits fill b bytes


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` levels of ``bits`` bits."""
    return (count * bits + 7) // 8


def pack_bits(flags: Tensor) -> Tensor:
    """bool [W, n] -> uint8 [W, ceil(n / 8)], eight to a byte, the first the highest."""
    if flags.device.type != "cpu":
        return pack_bits_by_torch(flags)
    rows = flags.numpy()
    if len(rows) == 1:  # NumPy is faster along its only axis
        return torch.from_numpy(np.packbits(rows[0]))[None]
    return torch.from_numpy(np.packbits(rows, axis=1))


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """uint8 [W, ceil(n / 8)] -> bool [W, n]. Raises CorruptMessageError if bits are set beyond n, or too few."""
    _check_length(packed, count, 1)
    spare = packed.shape[1] * 8 - count
    if spare and bool((packed[:, -1] & (2**spare - 1)).any()):
        raise CorruptMessageError("bits are set behind the last one")
    if packed.device.type != "cpu":
        return unpack_bits_by_torch(packed, count)
    rows = packed.numpy()
    if len(rows) == 1:
        return torch.from_numpy(np.unpackbits(rows[0], count=count)).view(torch.bool)[None]
    return torch.from_numpy(np.unpackbits(rows, axis=1, count=count)).view(torch.bool)


def pack_bits_by_torch(flags: Tensor) -> Tensor:
    """``pack_bits`` on any device."""
    padded = torch.nn.functional.pad(flags.view(torch.uint8), (0, -flags.shape[1] % 8)).view(len(flags), -1, 8)
    octets: Tensor = (padded << torch.arange(7, -1, -1, dtype=torch.uint8, device=flags.device)).sum(-1)
    return octets.to(torch.uint8)


def unpack_bits_by_torch(packed: Tensor, count: int) -> Tensor:
    """``unpack_bits`` on any device."""
    bits = packed[..., None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return (bits & 1).flatten(1)[:, :count].bool()


def pack_levels(levels: Tensor, bits: int) -> Tensor:
    """uint8 [W, n], each below 2^bits, 1 <= bits <= 8 -> uint8 [W, ceil(n bits / 8)]."""
    if 8 % bits == 0:
        levels = torch.nn.functional.pad(levels, (0, -levels.shape[1] % (8 // bits))) if bits < 8 else levels
        while bits < 8:  # two neighbours become one of twice as many bits
            pairs = levels.contiguous().view(torch.int16)
            levels, bits = (pairs >> 8 - bits).bitwise_or_(pairs).to(torch.uint8), 2 * bits
        return levels
    workers, count = levels.shape
    words = -(-count // LEVELS_PER_WORD)
    padded = torch.nn.functional.pad(levels, (0, words * LEVELS_PER_WORD - count))
    columns = padded.view(workers, words, LEVELS_PER_WORD)
    word = columns[..., 0].to(torch.int64)
    for place in range(1, LEVELS_PER_WORD):
        word |= columns[..., place].to(torch.int64) << (place * bits)
    octets = word.unsqueeze(-1).view(torch.uint8)[..., :bits]
    return octets.reshape(workers, -1)[:, : packed_bytes(count, bits)].contiguous()


def unpack_levels(packed: Tensor, count: int, bits: int) -> Tensor:
    """The inverse of ``pack_levels``: uint8 [W, n]. Raises CorruptMessageError for bits beyond n, or too few."""
    _check_length(packed, count, bits)
    spare = packed.shape[1] * 8 - count * bits
    if spare and bool((packed[:, -1] >> (8 - spare)).any()):
        raise CorruptMessageError("bits are set behind the last level")
    if 8 % bits == 0:
        width = 8
        while width > bits:  # and the other way round
            width //= 2
            pairs = packed.to(torch.int16)
            packed = (pairs << 8 - width).bitwise_or_(pairs).bitwise_and_(0x101 * (2**width - 1)).view(torch.uint8)
        return packed[:, :count]
    workers, words = len(packed), -(-count // LEVELS_PER_WORD)
    octets = packed.new_zeros(workers, words, 8)
    short = torch.nn.functional.pad(packed, (0, words * bits - packed.shape[1]))
    octets[..., :bits] = short.view(workers, words, bits)
    word = octets.view(torch.int64)
    shifts = torch.arange(0, LEVELS_PER_WORD * bits, bits, device=packed.device)
    levels: Tensor = (word >> shifts) & (2**bits - 1)
    return levels.to(torch.uint8).view(workers, -1)[:, :count]


def _check_length(packed: Tensor, count: int, bits: int) -> None:
    if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != packed_bytes(count, bits):
        raise CorruptMessageError(f"{list(packed.shape)} of {packed.dtype} cannot hold {count} levels of {bits} bits")


TRITS = (1, 3, 9, 27, 81)  # five values of {0, 1, 2} fit a byte: 3^5 = 243


def pack_trits(trits: Tensor) -> Tensor:
    """uint8 [W, n] of 0, 1, 2 -> uint8 [W, ceil(n / 5)], five to a byte."""
    workers, count = trits.shape
    padded = torch.nn.functional.pad(trits, (0, -count % 5)).view(workers, -1, 5)
    weights = torch.tensor(TRITS, dtype=torch.uint8, device=trits.device)
    packed: Tensor = (padded * weights).sum(-1).to(torch.uint8)
    return packed


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """The inverse: uint8 [W, n]. Raises CorruptMessageError for a byte above 242, or digits behind the last."""
    if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != -(-count // 5):
        raise CorruptMessageError(f"{list(packed.shape)} of {packed.dtype} cannot hold {count} ternary digits")
    digits = torch.empty(*packed.shape, 5, dtype=torch.uint8, device=packed.device)
    rest = packed
    for place in range(5):
        digits[..., place] = rest % 3
        rest = rest // 3
    digits = digits.view(len(packed), -1)
    if bool(rest.any()) or bool(digits[:, count:].any()):
        raise CorruptMessageError("not five ternary digits to a byte")
    return digits[:, :count]


def in_blocks(a: Tensor, size: int) -> Tensor:
    """[W, n] -> [W, ceil(n / size), size], zeros behind the last: for codecs with a scale for each block. A view where
    n is a multiple of size."""
    spare = -a.shape[1] % size
    return (torch.nn.functional.pad(a, (0, spare)) if spare else a).view(len(a), -1, size)


BITMAP, INT32 = 0, 4  # header of a set of indices; 1 and 2: offsets of so many bytes, in blocks

LARGEST = 2**31  # entries that 32 bits can name


@cache
def index_bytes(k: int, dim: int) -> int:
    """Bytes of k indices below J = ``dim``: a byte of header and the smallest format."""
    return 1 + min(_index_sizes(k, dim).values())


def _index_sizes(k: int, dim: int) -> dict[int, int]:
    """Bytes of each format, by its header.

    4: int32 each. 0: a bitmap of J bits. 1, 2: offsets of one or two bytes within blocks of 255 or 65,535 places, and
    how many lie in each block, in as many bytes; no counts where there is one block. These are deltas to the block's
    start rather than to the neighbour, so a gap can be as wide as it likes, the size is known beforehand, and nothing
    has to be added up from the left.
    """
    if k == 0:
        return {BITMAP: 0}
    if dim > LARGEST:
        raise ValueError(f"dim={dim}: more than 2^31 entries cannot be named by 32 bits; compress layer by layer")
    sizes = {INT32: 4 * k, BITMAP: packed_bytes(dim, 1)}
    for width in (2, 1):
        blocks = -(-dim // _block(width))
        sizes[width] = width * (k + (blocks if blocks > 1 else 0))
    return sizes


def _block(width: int) -> int:
    return int(256**width - 1)


def pack_indices(indices: Tensor, dim: int) -> Tensor:
    """int64 [W, k], ascending, below J = ``dim`` -> uint8 [W, index_bytes(k, dim)]."""
    workers, k = indices.shape
    sizes = _index_sizes(k, dim)
    kind = min(sizes, key=sizes.__getitem__)
    header = torch.full((workers, 1), kind, dtype=torch.uint8, device=indices.device)
    if k == 0:
        return header
    if kind == BITMAP:
        flags = torch.zeros(workers, dim, dtype=torch.bool, device=indices.device)
        return torch.cat([header, pack_bits(flags.scatter_(1, indices, True))], dim=1)
    if kind == INT32:
        return torch.cat([header, indices.int().view(torch.uint8)], dim=1)
    narrow = torch.uint8 if kind == 1 else torch.int16  # int16 stands for unsigned numbers
    size = _block(kind)
    block = indices.div(size, rounding_mode="floor")
    parts = [header, (indices - block * size).to(narrow).view(torch.uint8)]
    if dim > size:
        counts = torch.zeros(workers, -(-dim // size), dtype=torch.int64, device=indices.device)
        counts.scatter_add_(1, block, torch.ones_like(block))
        parts.insert(1, counts.to(narrow).view(torch.uint8))
    return torch.cat(parts, dim=1)


def unpack_indices(packed: Tensor, k: int, dim: int) -> Tensor:
    """uint8 [W, index_bytes(k, dim)] -> int64 [W, k]. Raises CorruptMessageError unless every row holds k ascending
    indices below J = ``dim`` in the format that ``pack_indices`` chooses."""
    rows_of_bytes = packed.dtype == torch.uint8 and packed.ndim == 2
    if not 0 <= k <= dim <= LARGEST or not rows_of_bytes or packed.shape[1] != index_bytes(k, dim):
        raise CorruptMessageError(f"{list(packed.shape)} of {packed.dtype} cannot hold {k} indices below {dim}")
    sizes = _index_sizes(k, dim)
    kind, workers = min(sizes, key=sizes.__getitem__), len(packed)
    if bool((packed[:, 0] != kind).any()):
        raise CorruptMessageError(f"the header is not {kind}, the format of {k} indices below {dim}")
    if k == 0:
        return torch.empty(workers, 0, dtype=torch.int64, device=packed.device)
    body = packed[:, 1:].clone(memory_format=torch.contiguous_format)  # a view would lie at an odd address
    if kind == BITMAP:
        flags = unpack_bits(body, dim)
        if bool((flags.sum(1) != k).any()):
            raise CorruptMessageError(f"the bitmap does not name {k} indices")
        return flags.nonzero()[:, 1].view(workers, k)
    indices = body.view(torch.int32).long() if kind == INT32 else _offsets(body, k, dim, kind)
    ascending = bool((indices[:, 1:] > indices[:, :-1]).all())
    if not ascending or bool((indices[:, 0] < 0).any()) or bool((indices[:, -1] >= dim).any()):
        raise CorruptMessageError(f"the indices are not ascending below {dim}")
    return indices


def _offsets(body: Tensor, k: int, dim: int, width: int) -> Tensor:
    size, workers = _block(width), len(body)
    numbers = body.long() if width == 1 else body.view(torch.int16).long() & 0xFFFF
    if bool((numbers[:, -k:] >= size).any()):
        raise CorruptMessageError("an offset points out of its block")
    if dim <= size:
        return numbers
    counts = numbers[:, :-k]
    if bool((counts.sum(1) != k).any()):
        raise CorruptMessageError(f"the blocks do not hold {k} indices in all")
    starts = torch.arange(0, counts.shape[1] * size, size, device=body.device).repeat(workers)
    return starts.repeat_interleave(counts.flatten(), output_size=workers * k).view(workers, k) + numbers[:, -k:]
