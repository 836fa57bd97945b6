"""Eight bits an entry, a scale for each block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import Compressor, CorruptMessageError, Message
from commexp.compressors.wire import in_blocks

LEVELS = 127


@dataclass
class Int8(Compressor):
    """C(a)_j = m round(127 a_j / m) / 127, m the largest magnitude of a_j's block of ``block`` entries.

    J bytes and m for each block. The error of an entry is at most m / 254, so that C contracts with
    delta = 1 - block / 254^2. Source: Dettmers, 8-bit approximations, arXiv 1511.04561 (linear, blockwise).
    Raises ValueError for a block out of 1 to 4096.
    """

    block: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 4096:
            raise ValueError(f"block={self.block}: out of range; give 1 to 4096, 256 is usual")

    def encode(self, a: Tensor) -> Message:
        workers, dim = a.shape
        blocks = in_blocks(a, self.block)
        largest = blocks.abs().amax(2)
        if not bool(torch.isfinite(largest).all()):
            raise ValueError("a: holds NaN or infinity, which has no level; see on_nonfinite")
        unit = torch.where(largest == 0, 1.0, largest)
        levels = (blocks / unit[..., None]).mul_(LEVELS).round_().to(torch.int8).flatten(1)[:, :dim].contiguous()
        bits = workers * 8.0 * (dim + largest.shape[1] * a.element_size())
        return Message({"levels": levels, "largest": largest}, dim, a.dtype, bits, self)

    def decode(self, message: Message) -> Tensor:
        largest = message.buffer("largest", message.dtype, -(-message.dim // self.block))
        levels = message.buffer("levels", torch.int8, message.dim)
        if bool((largest < 0).any()) or bool((levels == -128).any()):
            raise CorruptMessageError("a level or a block's largest magnitude is out of range")
        blocks = in_blocks(levels.to(message.dtype).div_(LEVELS), self.block)
        return (blocks * largest[..., None]).flatten(1)[:, : message.dim]

    def payload(self, dim: int, itemsize: int) -> int:
        return dim + -(-dim // self.block) * itemsize

    def delta(self, dim: int) -> float:
        return 1 - self.block / (2 * LEVELS) ** 2
