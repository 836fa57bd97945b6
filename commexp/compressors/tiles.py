"""How a flat vector is cut into chunks: tiles of the model's matrices, or runs of entries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Region:
    """``down`` x ``across`` tiles of one size, ``height`` x ``width`` entries each, side by side in a matrix of
    ``rows`` x ``columns`` entries that begins at ``start`` of the flat vector; the first tile's corner is in row
    ``top``, column ``left``. A run of entries is a tile of height 1."""

    start: int
    rows: int
    columns: int
    top: int
    left: int
    down: int
    across: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Entries of a tile."""
        return self.height * self.width

    @property
    def tiles(self) -> int:
        return self.down * self.across

    def view(self, a: Tensor) -> Tensor:
        """[..., J] -> the tiles, [..., down, across, height, width], in the same memory."""
        matrix = torch.unflatten(
            a[..., self.start : self.start + self.rows * self.columns], -1, (self.rows, self.columns)
        )
        bottom, right = self.top + self.down * self.height, self.left + self.across * self.width
        part = torch.unflatten(matrix[..., self.top : bottom, self.left : right], -2, (self.down, self.height))
        return torch.unflatten(part, -1, (self.across, self.width)).transpose(-3, -2)


def regions(dim: int, shapes: Mapping[str, Sequence[int]], side: int, run: int) -> list[Region]:
    """Every entry of a vector of length J = ``dim`` in one tile.

    ``shapes``: of the tensors that make up the vector, in order. A tensor of two axes or more, as the matrix of its
    first axis by the rest, is cut into tiles of side x side; other tensors are cut into runs of ``side``. What is left
    at the right, at the bottom and in the corner are smaller tiles. Where no shapes are given, or they are not those
    of a vector of this length, the vector is cut into runs of ``run``.
    """
    if not shapes or sum(map(math.prod, shapes.values())) != dim:
        return list(_matrix(0, 1, dim, 1, run))
    found: list[Region] = []
    start = 0
    for shape in shapes.values():
        size = math.prod(shape)
        rows = shape[0] if len(shape) > 1 else 1
        found += _matrix(start, rows, size // max(1, rows), side if len(shape) > 1 else 1, side)
        start += size
    return found


def _matrix(start: int, rows: int, columns: int, height: int, width: int) -> Iterator[Region]:
    for top, down, high in _cut(rows, height):
        for left, across, wide in _cut(columns, width):
            yield Region(start, rows, columns, top, left, down, across, high, wide)


def _cut(length: int, piece: int) -> Iterator[tuple[int, int, int]]:
    """Where pieces of one length begin, how many there are, and how long they are."""
    whole, rest = divmod(length, piece)
    if whole:
        yield 0, whole, piece
    if rest:
        yield whole * piece, 1, rest
