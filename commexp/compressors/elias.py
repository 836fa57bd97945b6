"""Elias gamma codes: short for small numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError


def gamma_encode(values: Tensor) -> Tensor:
    """Elias gamma code of positive integers, int64 [n] -> bits, bool [n + sum_i 2 floor(log2 v_i)].

    v with m = floor(log2 v) takes 2m + 1 bits: m zeros, a one, and the m low bits of v. All prefixes stand first, all
    low bits after them, so that both directions need no loop. Source: Elias, IEEE Trans. Inf. Theory 21(2), 1975.
    """
    low = _floor_log2(values)
    ends = torch.cumsum(low + 1, 0)
    head = torch.zeros(int(ends[-1]) if len(ends) else 0, dtype=torch.bool, device=values.device)
    head[ends - 1] = True
    owner = torch.repeat_interleave(torch.arange(len(values), device=values.device), low)
    place = torch.arange(len(owner), device=values.device) - (torch.cumsum(low, 0) - low)[owner]
    return torch.cat([head, ((values[owner] >> place) & 1).bool()])


def gamma_decode(bits: Tensor, count: int) -> tuple[Tensor, int]:
    """The first ``count`` gamma codes of ``bits`` -> (int64 [count], bits read). Raises CorruptMessageError if they
    are not all there, or one is above 2^40."""
    ones = bits.nonzero()[:count, 0]
    if len(ones) < count:
        raise CorruptMessageError(f"{len(ones)} of {count} codes")
    if count == 0:
        return ones, 0
    low = torch.diff(ones, prepend=ones.new_tensor([-1])) - 1
    head, tail = int(ones[-1]) + 1, int(low.sum())
    if head + tail > len(bits) or int(low.max()) > 40:
        raise CorruptMessageError("a code points behind the end")
    owner = torch.repeat_interleave(torch.arange(count, device=bits.device), low)
    place = torch.arange(tail, device=bits.device) - (torch.cumsum(low, 0) - low)[owner]
    values = torch.ones_like(low) << low
    values.index_add_(0, owner, bits[head : head + tail].long() << place)
    return values, head + tail


def _floor_log2(values: Tensor) -> Tensor:
    return torch.frexp(values.double()).exponent.long() - 1
