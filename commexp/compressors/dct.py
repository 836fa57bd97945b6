"""The discrete cosine transform around a codec."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from commexp.compressors.base import CodecContext, Compressor, Message, Wrapper
from commexp.compressors.tiles import Region, regions

KINDS = ("none", "dct")


@dataclass
class Transform:
    """Of what a codec encodes. ``kind``: none, or dct, see DCT. ``chunk``: entries of a transform. ``tiles``: whether
    the matrices of the model are cut into tiles, or the vector into runs."""

    kind: str = "none"
    chunk: int = 64
    tiles: bool = True


class DCT(Wrapper):
    """C(a) = T^-1 D(T a), with the codec D = ``codec`` and the orthonormal DCT-II T of every chunk of c = ``chunk``
    entries:

        (T v)_i = s_i sum_j v_j cos(pi (2 j + 1) i / (2 c)),    s_0 = sqrt(1/c), else s_i = sqrt(2/c)

    ``tiles``: a tensor of two axes or more, as the matrix of its first axis by the rest, is cut into tiles V of c x c
    entries, of which T is T V T^t, and any other tensor into runs of c. Else, or where the tensors are not known
    (CodecContext), the vector is cut into runs of c. What is left over is cut into smaller chunks, whose transform has
    their size: T is orthogonal, and nothing is padded. A coefficient stands where its chunk lies, so that D may cut the
    coefficients into the tensors and tiles that the vector has.

    T keeps norms, so that C has the delta of D, and is unbiased where D is. Messages hold coefficients: they are added
    up as D's are, and the sum is transformed back once. They are not cut into shards, as no entry is known before its
    whole chunk is.

    Source: DCT-II, Ahmed, Natarajan and Rao, IEEE Trans. Computers C-23, 1974; of tiles before Top-k: Peng, Quesnelle
    and Kingma, DeMo, arXiv 2411.19870. Raises ValueError for a chunk below 1.
    """

    state = "codec"
    entrywise = False
    splittable = False
    requantises = False
    sparse = False  # an entry that is zero in the message's terms is none of the vector's
    cut, cut_sizes, aggregate_payload = Compressor.cut, Compressor.cut_sizes, Compressor.aggregate_payload
    subtract_sent, clear_sent = Compressor.subtract_sent, Compressor.clear_sent
    requantise = Compressor.requantise

    def __init__(self, codec: Compressor, chunk: int = 64, tiles: bool = True) -> None:
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: must not be less than 1; 64 is usual")
        super().__init__(codec)
        self.chunk, self.tiles = chunk, tiles
        self._setup = CodecContext()
        self._laid_out: tuple[int, list[Region]] = 0, []

    def setup(self, setup: CodecContext) -> None:
        self._setup, self._laid_out = setup, (0, [])
        self.codec.setup(setup)

    def forward(self, a: Tensor) -> Tensor:
        """T: [..., J] -> the coefficients, [..., J]."""
        return self._transformed(a, inverse=False)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """T^-1, the transpose of T."""
        return self._transformed(coefficients, inverse=True)

    def _transformed(self, a: Tensor, inverse: bool) -> Tensor:
        dim = a.shape[-1]
        if self._laid_out[0] != dim:
            shapes = self._setup.shapes if self.tiles else {}
            self._laid_out = dim, regions(dim, shapes, self.chunk, self.chunk)
        out = torch.empty_like(a, memory_format=torch.contiguous_format)
        for source, target in zip(a.reshape(-1, dim), out.view(-1, dim), strict=True):  # bits without regard to W
            for region in self._laid_out[1]:
                down, across = (cosines(n, a.dtype, a.device) for n in (region.height, region.width))
                down, across = (down.mT, across.mT) if inverse else (down, across)
                tiles = region.view(source) @ across.mT
                region.view(target).copy_(tiles if region.height == 1 else down @ tiles)
        return out

    def encode(self, a: Tensor) -> Message:
        return replace(self.codec.encode(self.forward(a)), codec=self)

    def decode(self, message: Message) -> Tensor:
        return self.inverse(self.codec.decode(message))

    def next_phase(self, message: Message, total: Tensor) -> Message | None:
        following = self.codec.next_phase(message, total)
        return None if following is None else replace(following, codec=self)

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        return self.inverse(self.codec.finalize(message, total))

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        self.codec.feedback(self.forward(aggregate), weights)


def transformed(codec: Compressor, how: Transform) -> Compressor:
    """The codec, or DCT around it. Raises ValueError for another kind, settings of none, and as DCT does."""
    if how.kind not in KINDS:
        raise ValueError(f"kind={how.kind}: unknown; give {' or '.join(KINDS)}")
    if how.kind == "dct":
        return DCT(codec, how.chunk, how.tiles)
    if how != Transform():
        raise ValueError("kind=none: chunk and tiles have nothing to act on; give dct")
    return codec


@cache
def cosines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix of the orthonormal DCT-II, [n, n]."""
    places = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / (2 * n) * torch.outer(places, 2 * places + 1)).mul_(math.sqrt(2 / n))
    matrix[0] = math.sqrt(1 / n)
    return matrix.to(device, dtype)
