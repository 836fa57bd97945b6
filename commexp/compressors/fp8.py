"""Eight bits of floating point an entry, a scale for each block."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.compressors.minifloat import MiniFloat


@dataclass
class FP8(MiniFloat):
    """Eight bits an entry, ``format`` e4m3 (3 bits of mantissa, magnitudes 2^-9 to 448) or e5m2 (2 bits, 2^-16 to
    57344), for each block of ``block`` entries relative to its largest magnitude: see MiniFloat.
    Source: Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433; codes are as there, NaN and infinity
    are never sent."""

    format: str = "e4m3"

    bits = 8
    formats = {"e4m3": (4, 3, 0x7E), "e5m2": (5, 2, 0x7B)}  # noqa: RUF012
