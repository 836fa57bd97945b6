"""The aggregate as it travels back to the workers: whole, as entries, or as signs, whichever is smallest. Lossless.

A packed aggregate is a byte that names its form, and then

    0  dense      all values
    1  entries    how many (int64), their packed indices, their values
    2  signs      one magnitude and a ternary digit an entry: of a majority's vote
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError, log2_binomial
from commexp.compressors.wire import index_bytes, pack_indices, pack_trits, unpack_indices, unpack_trits

DENSE, ENTRIES, SIGNS = 0, 1, 2
HEADERS = {DENSE: 1, ENTRIES: 9, SIGNS: 1}  # bytes that say what follows: the frame's, not counted as payload


def aggregate_size(x: Tensor, width: int | None = None) -> tuple[int, float]:
    """(bytes, bits of information) of the packed aggregate x [m], without its header; with ``width`` of its
    shards of that length, packed one by one."""
    width = width or len(x)
    rows = torch.nn.functional.pad(x, (0, -len(x) % width)).view(-1, width)
    lengths = [width] * (len(rows) - 1) + [len(x) - width * (len(rows) - 1)]
    total, information, bits = 0, 0.0, 8.0 * x.element_size()
    for (kind, nbytes), k, m in zip(_smallest(rows, lengths), _counts(rows), lengths, strict=True):
        total += nbytes
        if kind == ENTRIES:
            information += log2_binomial(m, k) + bits * k
        else:
            information += bits + m * math.log2(3) if kind == SIGNS else bits * m
    return total, information


def pack_aggregate(x: Tensor) -> Tensor:
    """x [m] -> uint8."""
    ((kind, _),) = _smallest(x[None], [len(x)])
    header = x.new_full((1,), kind, dtype=torch.uint8)
    if kind == DENSE:
        return torch.cat([header, _bytes(x)])
    if kind == SIGNS:
        trits = torch.where(x == 0, 0, (x > 0).to(torch.uint8) + 1).to(torch.uint8)
        return torch.cat([header, _bytes(x.abs().amax(0, keepdim=True)), pack_trits(trits[None])[0]])
    places = x.nonzero()[:, 0]
    count = torch.tensor([len(places)], dtype=torch.int64, device=x.device)
    return torch.cat([header, _bytes(count), pack_indices(places[None], len(x))[0], _bytes(x[places])])


def unpack_aggregate(packed: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """uint8 -> [m] of ``dtype``. Raises CorruptMessageError for bytes that no ``pack_aggregate`` can have made."""
    kind = int(packed[0]) if len(packed) else -1
    if kind not in HEADERS or len(packed) < HEADERS[kind]:
        raise CorruptMessageError(f"an aggregate of {len(packed)} bytes cannot begin with {kind}")
    body = packed[HEADERS[kind] :]
    if kind == DENSE:
        return _numbers(body, dtype, dim)
    if kind == SIGNS:
        scale, trits = _numbers(body[: dtype.itemsize], dtype, 1), unpack_trits(body[None, dtype.itemsize :], dim)[0]
        return torch.tensor([0, -1, 1], dtype=dtype, device=packed.device)[trits.int()] * scale
    k = int(_numbers(packed[1:9], torch.int64, 1))
    if not 0 < k <= dim:
        raise CorruptMessageError(f"an aggregate of {k} entries among {dim}")
    cut = index_bytes(k, dim)
    places = unpack_indices(body[None, :cut], k, dim)[0]
    return torch.zeros(dim, dtype=dtype, device=packed.device).scatter_(0, places, _numbers(body[cut:], dtype, k))


def _counts(rows: Tensor) -> list[int]:
    return [int(k) for k in torch.count_nonzero(rows, dim=1).tolist()]


def _smallest(rows: Tensor, lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Which form each row [*, m] takes, and its bytes; rows are padded with zeros beyond their length."""
    item, counts = rows.element_size(), _counts(rows)
    choices = []
    for k, m in zip(counts, lengths, strict=True):
        sizes = {DENSE: m * item}
        if k > 0:
            sizes |= {ENTRIES: index_bytes(k, m) + k * item, SIGNS: item + -(-m // 5)}
        choices.append(sizes)
    if any(min(sizes, key=sizes.__getitem__) == SIGNS for sizes in choices):  # the smallest by far, seldom possible
        magnitudes = rows.abs()
        equal = ((magnitudes == magnitudes.amax(1, keepdim=True)) | (rows == 0)).all(1).tolist()
        for sizes, possible in zip(choices, equal, strict=True):
            if not possible:
                sizes.pop(SIGNS, None)
    return [min(sizes.items(), key=lambda item: item[1]) for sizes in choices]


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)


def _numbers(packed: Tensor, dtype: torch.dtype, count: int) -> Tensor:
    if len(packed) != count * dtype.itemsize:
        raise CorruptMessageError(f"{len(packed)} bytes cannot hold {count} numbers of {dtype}")
    return packed.clone().view(dtype)
