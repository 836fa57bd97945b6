"""Sets of indices as bytes, in the smallest of four formats. Rows are workers."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError
from commexp.compressors.wire import pack_bits, packed_bytes, unpack_bits

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
