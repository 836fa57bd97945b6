"""Parts of the vectors of W workers that are encoded together, so that what is calculated on the way stays in a CPU's
cache."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

PIECE = 1 << 19  # entries


def pieces(a: Tensor, grain: int = 8) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of parts of a [W, J], which together are all of it: some entries of one row, from a multiple of
    ``grain`` on, or several whole rows. Each row's parts come in order. On a GPU ``a`` is one part."""
    workers, dim = a.shape
    limit = PIECE if a.device.type == "cpu" else max(1, a.numel())
    height, width = max(1, limit // max(1, dim)), grain * max(1, limit // grain)
    for row in range(0, workers, height):
        for column in range(0, dim, width):
            yield slice(row, min(row + height, workers)), slice(column, min(column + width, dim))
