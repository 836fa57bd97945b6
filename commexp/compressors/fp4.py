"""Four bits of floating point an entry, a scale for each block."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.compressors.minifloat import MiniFloat


@dataclass
class FP4(MiniFloat):
    """Four bits an entry, ``format`` e2m1 (0, 0.5, 1, 1.5, 2, 3, 4, 6) or e3m0 (0, 0.25, 0.5, 1, 2, 4, 8, 16), for each
    block of ``block`` entries relative to its largest magnitude: see MiniFloat.
    Source: OCP Microscaling Formats, version 1.0 (e2m1); Douillard et al., Streaming DiLoCo, arXiv 2501.18512 (e3m0
    for outer gradients)."""

    format: str = "e2m1"

    bits = 4
    formats = {"e2m1": (2, 1, 7), "e3m0": (3, 0, 7)}  # noqa: RUF012
