"""Some columns of a flat vector, taken out and put back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass
class Columns:
    """The entries of [..., J] in these ``places``, in this order, as one vector of length ``dim``."""

    places: Sequence[slice]

    @property
    def dim(self) -> int:
        return sum(place.stop - place.start for place in self.places)

    def take(self, a: Tensor) -> Tensor:
        """[..., J] -> [..., dim]; a view where there is one place."""
        pieces = [a[..., place] for place in self.places]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)

    def put(self, values: Tensor, out: Tensor) -> None:
        """Writes [..., dim] over the columns of ``out`` [..., J]."""
        start = 0
        for place in self.places:
            width = place.stop - place.start
            out[..., place] = values[..., start : start + width]
            start += width


def places_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, slice]:
    """Where in the flat vector each of its tensors is; ``shapes``: of these, by name, in order."""
    ends = pairwise(accumulate(map(math.prod, shapes.values()), initial=0))
    return {name: slice(start, end) for name, (start, end) in zip(shapes, ends, strict=True)}


def adjoined(places: Iterable[slice]) -> list[slice]:
    """The same entries in as few places as possible."""
    found: list[slice] = []
    for place in places:
        follows = found and found[-1].stop == place.start
        found.append(slice(found.pop().start, place.stop) if follows else place)
    return found
