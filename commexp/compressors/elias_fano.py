"""Sets of k of n places as bits, of a number that k and n decide. All functions take a set in each row, [R, k].

Of the places p_0 < p_1 < ... of a set the m lowest bits are written as they are, k m bits in all, and what is above
them, h_i = p_i >> m, as k + ceil(n / 2^m) - 1 bits of which bits h_i + i are 1. With m = 0 a bitmap of n bits takes
their place, with 2^m >= n nothing is above: numbers of fixed width. The m of the fewest bits is taken. A set that holds
all places takes no bits.

About log2(n/k) + 2 bits a place, where log2 of the number of sets is log2(n/k) + 1.44 for k much smaller than n.
Source: Elias, Efficient storage and retrieval by content and address of static files, J. ACM 21, 1974.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError


def set_bits(k: int, n: int) -> int:
    """Bits of a set of k of n places."""
    return _format(k, n)[0]


@cache
def _format(k: int, n: int) -> tuple[int, int]:
    """(bits, m)."""
    if k in (0, n):
        return 0, 0
    width = (n - 1).bit_length()
    sizes = {m: k * m + k + _above(n, m) - 1 for m in range(1, width)}
    return min((bits, m) for m, bits in {**sizes, 0: n, width: k * width}.items())


def _above(n: int, m: int) -> int:
    """How many values p >> m has for the places p below n."""
    return -(-n >> m)


def encode(places: Tensor, n: int) -> Tensor:
    """int64 [R, k], ascending and below n -> bool [R, set_bits(k, n)]."""
    rows, k = places.shape
    bits, m = _format(k, n)
    if bits == 0:
        return torch.empty(rows, 0, dtype=torch.bool, device=places.device)
    parts = []
    if m:
        shifts = torch.arange(m, device=places.device)
        parts.append(((places[..., None] >> shifts) & 1).bool().flatten(1))
    if bits > k * m:
        ones = places if m == 0 else (places >> m) + torch.arange(k, device=places.device)
        above = torch.zeros(rows, bits - k * m, dtype=torch.bool, device=places.device)
        parts.append(above.scatter_(1, ones, True))
    return torch.cat(parts, dim=1)


def decode(flags: Tensor, k: int, n: int) -> Tensor:
    """bool [R, set_bits(k, n)] -> int64 [R, k], ascending. Raises CorruptMessageError for bits that ``encode`` makes of
    no set."""
    rows, (bits, m) = len(flags), _format(k, n)
    if bits == 0:
        return torch.arange(k, device=flags.device).expand(rows, -1)
    places = torch.zeros(rows, k, dtype=torch.int64, device=flags.device)
    if m:
        shifts = torch.arange(m, device=flags.device)
        places += (flags[:, : k * m].view(rows, k, m).long() << shifts).sum(2)
    if bits > k * m:
        above = flags[:, k * m :]
        if bool((above.sum(1) != k).any()):
            raise CorruptMessageError(f"a chunk's bits do not name {k} places")
        ones = above.nonzero()[:, 1].view(rows, k)
        places += ones if m == 0 else (ones - torch.arange(k, device=flags.device)) << m
    if bool((places[:, 1:] <= places[:, :-1]).any()) or bool((places[:, -1] >= n).any()):
        raise CorruptMessageError(f"a chunk's places are not ascending below {n}")
    return places
