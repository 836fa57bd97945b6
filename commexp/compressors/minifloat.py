"""Floating-point numbers of a few bits, a scale for each block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError
from commexp.compressors.blockwise import SMALLEST, STRETCH, Blockwise

MANTISSA = 10  # bits of float16's


@dataclass
class MiniFloat(Blockwise):
    """C(a)_j = r v, where r is the largest magnitude of a_j's block of ``block`` entries and v the number of ``format``
    nearest to a_j / r, the format's largest number being 1. Of two that are equally near, the larger.

    A sign, exponent and mantissa, with subnormal numbers: J numbers of ``bits`` bits and 2 bytes for each block. It
    contracts: with v_i the midpoints of neighbouring numbers, and e_i how far both are,

        ||C(a) - a||^2 <= max_i n e_i^2 / (1 + n v_i^2) ||a||^2,    n = block - 1

    but for what rounding r adds. Formats differ from float16 in the number of bits alone: with their smallest normal
    number at float16's, their bits are the leading ones of float16, so that one addition rounds.
    Raises ValueError for an unknown format.
    """

    block: int = 256
    format: str = ""

    #: exponent bits, mantissa bits, and the magnitude code of the largest number, by the format's name
    formats: ClassVar[dict[str, tuple[int, int, int]]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format not in self.formats:
            raise ValueError(f"format={self.format}: unknown; give {' or '.join(self.formats)}")
        _, mantissa, self._top = self.formats[self.format]
        self._drop = MANTISSA - mantissa
        self._unit = float(torch.tensor(self._top << self._drop, dtype=torch.int16).view(torch.float16))

    def codes(self, x: Tensor, scale: Tensor, noise: Tensor | None) -> Tensor:
        factor = self._unit / scale.clamp_min(SMALLEST)  # zero or more than that
        word = (x * factor).half().view(torch.int16)
        sign = (word >> 15).bitwise_and_(1 << self.bits - 1)
        return word.add_(1 << self._drop - 1).bitwise_right_shift_(self._drop).bitwise_and_(self._magnitude).add_(sign)

    @property
    def _magnitude(self) -> int:
        """A code without its sign."""
        return (1 << self.bits - 1) - 1

    def values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        word = codes.to(torch.int16)
        magnitude = word & self._magnitude
        if self._top < self._magnitude and bool((magnitude > self._top).any()):
            raise CorruptMessageError(f"codes: one is beyond the largest number of {self.format}")
        word = magnitude.bitwise_left_shift_(self._drop).bitwise_or_((word >> self.bits - 1).bitwise_left_shift_(15))
        return word.view(torch.float16).to(dtype).div_(self._unit)

    @cached_property
    def _lost(self) -> float:
        numbers = self.values(torch.arange(self._top + 1, dtype=torch.uint8), torch.float64)
        middle = (numbers[1:] + numbers[:-1]) / 2
        off = (numbers[1:] - numbers[:-1]) / 2 + middle * 2.0**-MANTISSA  # float16's own rounding
        largest, others = STRETCH**-2, self.block - 1
        shares = (others * off**2 + (1 - 1 / STRETCH) ** 2) / (largest + others * middle**2)
        return float(shares.max())

    def delta(self, dim: int) -> float:
        return 1 - self._lost
