"""Chunked Top-k: the k entries of largest magnitude of every chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Union

import torch
from torch import Tensor

from commexp.compressors import elias_fano
from commexp.compressors.base import CodecContext, CorruptMessageError, Message, log2_binomial
from commexp.compressors.sparse import Sparse, by_tournament
from commexp.compressors.tiles import Region, regions
from commexp.compressors.wire import pack_bits, packed_bytes, unpack_bits

COMBINED = ("all", "senders")
BLOCK = 2**18  # entries of a worker that are looked at together


class Chunks:
    """The n chunks of ``size`` entries of a vector, in the order of ``regions``."""

    def __init__(self, size: int, parts: Sequence[Region]) -> None:
        self.size, self.parts = size, parts
        self.count = sum(r.tiles for r in parts)

    def blocks(self, a: Tensor) -> Iterator[Tensor]:
        """The chunks of [W, J], one block of them [W, m, size] after the other; on the CPU a block stays in the
        cache."""
        workers, most = len(a), max(1, BLOCK // self.size) if a.device.type == "cpu" else self.count
        waiting: list[Tensor] = []
        for r in self.parts:
            for band in torch.split(r.view(a), max(1, most // r.across), dim=1):
                waiting.append(band.reshape(workers, -1, self.size))
                if sum(piece.shape[1] for piece in waiting) >= most:
                    yield torch.cat(waiting, dim=1)
                    waiting = []
        if waiting:
            yield torch.cat(waiting, dim=1)

    def places(self, within: Tensor) -> Tensor:
        """Places within the chunks [W, n, k] -> places in the vector, [W, n k]."""
        start, width, columns = self._geometry.to(within.device).unsqueeze(-1)
        places: Tensor = start + within // width * columns + within % width
        return places.flatten(1)

    @cached_property
    def _geometry(self) -> Tensor:
        """Of each chunk where it starts, its width, and the columns of its matrix: [3, n]."""
        starts = []
        for r in self.parts:
            down = torch.arange(r.down)[:, None] * r.height + r.top
            across = torch.arange(r.across) * r.width + r.left
            starts.append((r.start + down * r.columns + across).flatten())
        each = torch.tensor([r.tiles for r in self.parts])
        widths = torch.tensor([r.width for r in self.parts]).repeat_interleave(each)
        columns = torch.tensor([r.columns for r in self.parts]).repeat_interleave(each)
        return torch.stack([torch.cat(starts), widths, columns])


@dataclass
class Chunked(Sparse):
    """C(a) keeps of every chunk of ``chunk`` entries the k of largest |a_j|; a contraction with delta = k/chunk.

    ``k``: a count, or all entries of a chunk that has fewer; or a ratio of each chunk, rounded, at least one entry.
    ``tiles``: a tensor of two axes or more, as the matrix of its first axis by the rest, is cut into squares of
    ``chunk`` entries, such as 64 x 64, and any other tensor into runs of their side. Else, or where the tensors are not
    known (CodecContext), the vector is cut into runs of ``chunk``. What is left over is cut into smaller chunks.

    The indices within a chunk take the fewest bits of the formats of elias_fano.py: 8 bits an entry for 64 of 4,096,
    where numbers of fixed width take 12. The values stand chunk by chunk, so that a Composition with a codec of blocks
    of k scales each chunk by itself. A shard of the vector, see ``cut``, has the formats of wire.pack_indices.

    ``combine``: all, or senders. For workers n with weights w_n that send v_n, of which v_n[j] = 0 where n does not
    send entry j,

        all        aggregate[j] = sum_n w_n v_n[j]
        senders    aggregate[j] = sum_n w_n v_n[j] / sum over those n that send j of w_n,    0 where nobody does

    Gossip and asynchronous methods, where nobody has all messages, decode each by itself, whatever combine is.

    Source: Sarfi et al., SparseLoCo, arXiv 2508.15706, and github.com/tplr-ai/CCLoco: chunks of 64 x 64, and the mean
    over the workers that sent an entry. Raises ValueError if k is no share of a chunk, chunk is no square with
    tiles=true, or combine is unknown.
    """

    k: Union[int, float] = 0.01  # noqa: UP007
    chunk: int = 4096
    tiles: bool = True
    combine: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < 1:
            raise ValueError(f"chunk={self.chunk}: must not be less than 1; 4096 is usual")
        if self.tiles and math.isqrt(self.chunk) ** 2 != self.chunk:
            raise ValueError(f"chunk={self.chunk}: no square, as tiles are; give 4096, or tiles=false")
        if isinstance(self.k, int) and self.k > self.chunk:
            raise ValueError(f"k={self.k}: more than the {self.chunk} entries of a chunk; give at most {self.chunk}")
        if self.combine not in COMBINED:
            raise ValueError(f"combine={self.combine}: unknown; give {' or '.join(COMBINED)}")
        self.linear = self.combine == "all"
        self._laid_out: tuple[int, list[Chunks]] = 0, []

    def setup(self, setup: CodecContext) -> None:
        super().setup(setup)
        self._laid_out = 0, []

    def _chunks(self, dim: int) -> list[Chunks]:
        """The chunks of a vector of length J = ``dim``, those of one size together."""
        if self._laid_out[0] != dim:
            by_size: dict[int, list[Region]] = {}
            shapes = self._setup.shapes if self.tiles else {}
            for region in regions(dim, shapes, math.isqrt(self.chunk), self.chunk):
                by_size.setdefault(region.size, []).append(region)
            self._laid_out = dim, [Chunks(size, parts) for size, parts in by_size.items()]
        return self._laid_out[1]

    def _each(self) -> int:
        """How many entries of a whole chunk are sent: k, or in warm-up chunk (k/chunk)^exponent."""
        k = max(1, round(self.k * self.chunk)) if isinstance(self.k, float) else self.k
        return k if self._exponent == 1.0 else max(k, round(self.chunk * (k / self.chunk) ** self._exponent))

    def _sizes(self, dim: int, each: int) -> list[tuple[Chunks, int]]:
        """The chunks, and of how many entries each of them sends where a whole one sends ``each``."""
        ratio = isinstance(self.k, float)
        return [
            (c, max(1, round(each * c.size / self.chunk)) if ratio else min(each, c.size)) for c in self._chunks(dim)
        ]

    def entries(self, dim: int) -> int:
        return sum(c.count * k for c, k in self._sizes(dim, self._each()))

    def encode(self, a: Tensor) -> Message:
        workers, dim = a.shape
        each, ideal = self._each(), 0.0
        flags, places = [], []
        for chunks, k in self._sizes(dim, each):
            blocks = [largest(b.flatten(0, 1), k).view(workers, -1, k) for b in chunks.blocks(a)]
            chosen = torch.cat(blocks, dim=1)
            flags.append(elias_fano.encode(chosen.flatten(0, 1), chunks.size).view(workers, -1))
            places.append(chunks.places(chosen))
            ideal += workers * chunks.count * (log2_binomial(chunks.size, k) + 8.0 * k * a.element_size())
        sent = torch.cat(places, dim=1)
        buffers = {"indices": pack_bits(torch.cat(flags, dim=1)), "values": a.gather(1, sent)}
        message = Message(buffers, dim, a.dtype, ideal, self, header={"each": each})
        self._sent = message, sent
        return message

    def places(self, message: Message) -> Tensor:
        each = message.header.get("each", 0)
        if not 1 <= each <= self.chunk:
            raise CorruptMessageError(f"each: {each} entries of a chunk of {self.chunk}")
        sizes = self._sizes(message.dim, each)
        bits = [c.count * elias_fano.set_bits(k, c.size) for c, k in sizes]
        message.buffer("values", message.dtype, sum(c.count * k for c, k in sizes))
        flags = unpack_bits(message.buffer("indices", torch.uint8, packed_bytes(sum(bits), 1)), sum(bits))
        places = []
        for (chunks, k), own in zip(sizes, torch.split(flags, bits, dim=1), strict=True):
            rows = own.reshape(message.workers * chunks.count, -1)
            within = elias_fano.decode(rows, k, chunks.size).reshape(message.workers, chunks.count, k)
            places.append(chunks.places(within))
        return torch.cat(places, dim=1)

    def rows(self, message: Message) -> list[tuple[Tensor, Tensor]]:
        """In the order of the vector."""
        orders = [(p.argsort(), p, v) for p, v in super().rows(message)]
        return [(p[order], v[order]) for order, p, v in orders]

    def payload(self, dim: int, itemsize: int) -> int:
        sizes = self._sizes(dim, self._each())
        bits = sum(c.count * elias_fano.set_bits(k, c.size) for c, k in sizes)
        return self.entries(dim) * itemsize + packed_bytes(bits, 1)

    def delta(self, dim: int) -> float:
        return min(k / c.size for c, k in self._sizes(dim, self._each()))

    def summands(self, message: Message) -> Tensor:
        """The vectors; with ``combine=senders`` also, behind each, ones at the entries that were sent."""
        values = self.decode(message)
        return values if self.combine == "all" else torch.cat([values, self.decode(_ones(message))], dim=1)

    def summand_count(self, message: Message) -> int:
        return message.dim if self.combine == "all" else 2 * message.dim

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        total = super().add_up(message, weights)
        return total if self.combine == "all" else torch.cat([total, super().add_up(_ones(message), weights)])

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        if self.combine == "all":
            return total
        values, senders = total.view(2, -1)
        return torch.where(senders == 0, 0.0, values / senders)


def _ones(message: Message) -> Message:
    """The same entries with the value 1."""
    values = torch.ones_like(message.buffers["values"])
    return replace(message, buffers={**message.buffers, "values": values})


def largest(x: Tensor, k: int) -> Tensor:
    """Indices [R, k], ascending, of the k largest magnitudes of each row of [R, n]."""
    rows, n = x.shape
    if k == n:
        return torch.arange(n, device=x.device).expand(rows, -1)
    group = 1 << max(0, round(math.log2(n / k) / 2))
    if group < 4:
        return x.abs().topk(k, dim=1, sorted=False).indices.sort(1).values
    return by_tournament(x, k, group)
