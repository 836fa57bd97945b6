"""Random numbers by position: a hash of (seed, position), in 32-bit integer operations, the same on every device.

So a piece of a vector has the same draws wherever the vector is cut, and in whatever order the pieces are encoded.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALVES = 2  # draws of 16 bits in a word of 32
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - 2**32


def draws(seed: int, start: int, stop: int, device: torch.device) -> Tensor:
    """int16 [stop - start], uniform over all 65,536 values: the draws of the positions start, ..., stop - 1; ``start``
    is even. ``seed``: 64 bits.

    Word i is mix(k + i g): a Weyl sequence whose start k and odd step g are the seed's halves, mixed by a bijection of
    32 bits; position j has the (j mod 2)-th half of word j // 2.
    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (a step for each
    stream); the mixing function is Wellons' lowbias32.
    """
    first, last = start // HALVES, -(-stop // HALVES)
    step, origin = _signed(seed >> 32 | 1), _signed(seed)
    words = torch.arange(first, last, dtype=torch.int32, device=device).mul_(step).add_(origin)
    _mix(words)
    return words.view(torch.int16)[: stop - start]


def _signed(number: int) -> int:
    """The low 32 bits as an int32."""
    return (number + 2**31 & 2**32 - 1) - 2**31


def _mix(x: Tensor) -> None:
    """x ^= x >> 16; x *= FIRST; x ^= x >> 15; x *= SECOND; x ^= x >> 16, unsigned, written over ``x``."""
    shifted = torch.empty_like(x)
    for shift, factor in ((16, FIRST), (15, SECOND), (16, None)):
        torch.bitwise_right_shift(x, shift, out=shifted)
        x.bitwise_xor_(shifted.bitwise_and_((1 << 32 - shift) - 1))
        if factor is not None:
            x.mul_(factor)
