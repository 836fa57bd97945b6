"""The fragments of a model that are exchanged one after the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise

from torch import Tensor

from commexp.compressors import Columns, adjoined, places_of

ORDERS = ("strided", "sequential")
NUMBER = re.compile(r"^((?:.*?\.)?\d+)(?:\.|$)")  # a tensor's name up to the number of its block


@dataclass
class Fragment(Columns):
    """Some tensors of the model as one vector of length ``dim``. ``shapes``: of these tensors, by name, in order.
    ``whole``: whether it is the whole model, which is then taken and put as it is, without a copy."""

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    whole: bool = False

    def take(self, a: Tensor) -> Tensor:
        return a if self.whole else super().take(a)

    def replaced(self, a: Tensor, values: Tensor) -> Tensor:
        """``a`` [..., J] with ``values`` [..., dim] in this fragment's places, written over ``a`` unless the fragment
        is the whole model."""
        if self.whole:
            return values
        self.put(values, a)
        return a


def fragments_of(shapes: Mapping[str, Sequence[int]], dim: int, count: int, order: str) -> list[Fragment]:
    """``count`` fragments of whole blocks of the model. ``shapes``: names and shapes, in order, of its tensors, ``dim``
    entries in all.

        strided       block b = 0, ..., B-1 to fragment b mod count
        sequential    to fragment floor(b count / B)

    A block is what has the same number in its name, such as blocks.3.*. Tensors before the first block go with the
    first one, those after the last block with the last one. A model with fewer blocks than fragments is cut into its
    tensors; one with fewer tensors, into stretches of its flat vector as long as each other. Raises ValueError for a
    vector with fewer entries than fragments.
    """
    if count == 1:
        return [Fragment([slice(0, dim)], shapes, whole=True)]
    units = _blocks(shapes)
    if len(units) < count:
        units = [[name] for name in shapes]
    if dim < count:
        raise ValueError(f"algo.fragments={count}: the model has {dim} entries; give at most so many")
    if len(units) < count:
        ends = accumulate(equal_parts(dim, count), initial=0)
        return [Fragment([slice(start, end)]) for start, end in pairwise(ends)]
    places = places_of(shapes)
    members: list[list[str]] = [[] for _ in range(count)]
    for b, unit in enumerate(units):
        members[b % count if order == "strided" else b * count // len(units)] += unit
    return [Fragment(adjoined(places[n] for n in each), {n: shapes[n] for n in each}) for each in members]


def _blocks(shapes: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """The names of the tensors of each block."""
    numbered = [(match[1] if (match := NUMBER.match(name)) else "", name) for name in shapes]
    blocks: list[list[str]] = []
    before: list[str] = []  # names that wait for the first block
    for block, group in groupby(numbered, key=lambda pair: pair[0]):
        names = [name for _, name in group]
        if block:
            blocks.append(before + names)
            before = []
        elif blocks:
            blocks[-1] += names
        else:
            before = names
    return blocks or [before]


def equal_parts(whole: int, count: int) -> list[int]:
    """``count`` whole numbers as equal as possible, ``whole`` in all."""
    return [(i + 1) * whole // count - i * whole // count for i in range(count)]
