"""TernGrad: three values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError, Message
from commexp.compressors.stochastic import Stochastic
from commexp.compressors.wire import pack_trits, unpack_trits


@dataclass
class TernGrad(Stochastic):
    """C(a)_j = s sign(a_j) b_j with s = max_j |a_j| and b_j = 1 with probability |a_j| / s, else 0: unbiased.

    Five ternary digits to a byte, 1.6 bits an entry, and s. ``clip`` c: entries beyond c standard deviations are
    brought back to c first, which lowers the variance and gives a bias (the paper takes 2.5; null: none).
    Source: Wen et al., TernGrad, arXiv 1705.07878, equations 1 to 3 and section 5. Raises ValueError if clip is not
    positive.
    """

    clip: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip={self.clip}: must be positive; 2.5 is usual, null leaves clipping out")
        self.unbiased = self.clip is None

    def encode(self, a: Tensor) -> Message:
        x = a
        if self.clip is not None:
            limit = self.clip * a.double().std(1, keepdim=True, correction=0).to(a.dtype)
            x = a.clamp(-limit, limit)
        scale = x.abs().amax(1, keepdim=True)
        if bool(scale.isnan().any()):
            raise ValueError("a: holds NaN, which has no sign; see on_nonfinite")
        kept = self.uniform(x).mul_(scale) < x.abs()
        trits = torch.where(kept, (x > 0).to(torch.uint8) + 1, 0).to(torch.uint8)  # 0: none, 1: minus, 2: plus
        bits = len(a) * (a.shape[1] * LOG2_3 + 8.0 * a.element_size())
        return Message({"trits": pack_trits(trits), "scale": scale}, a.shape[1], a.dtype, bits, self)

    def decode(self, message: Message) -> Tensor:
        scale = message.buffer("scale", message.dtype, 1)
        if bool((scale < 0).any()):
            raise CorruptMessageError("scale: is negative")
        trits = unpack_trits(message.buffer("trits", torch.uint8), message.dim)
        signs = torch.tensor([0, -1, 1], dtype=message.dtype, device=scale.device)[trits.int()]
        return signs.mul_(scale)

    def payload(self, dim: int, itemsize: int) -> int:
        return -(-dim // 5) + itemsize

    def omega(self, dim: int) -> float | None:
        """The variance is s ||a||_1 - ||a||^2, and max_j |a_j| ||a||_1 <= (1 + sqrt(J)) / 2 ||a||^2."""
        return (math.sqrt(dim) - 1) / 2 if self.unbiased else None


LOG2_3 = math.log2(3)
