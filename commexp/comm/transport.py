"""How an aggregate comes about, exchange by exchange: what is moved between processes, and who adds up what.

Each method begins an exchange and gives its steps (links.py). With ``in_order`` everything is added worker by worker,
so the result has the same bits however the workers are spread over processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from commexp.comm.frames import pack_frames, unpack_frames
from commexp.comm.links import Processes, Steps
from commexp.compressors import Message
from commexp.compressors.aggregate import pack_aggregate, unpack_aggregate
from commexp.compressors.base import narrowed, weighted_sum


def stretches(dim: int, count: int) -> list[int]:
    """Bounds of ``count`` stretches of a vector of length ``dim``, multiples of 8 but for the last; the last ones may
    be empty."""
    step = 8 * math.ceil(dim / count / 8)
    return [min(i * step, dim) for i in range(count + 1)]


class Transport:
    """Among P > 1 processes that host W workers each."""

    def __init__(self, links: Processes, in_order: bool) -> None:
        self.links, self.in_order = links, in_order
        self._known: tuple[Tensor, int, Tensor] | None = None

    def all_gather(self, message: Message, weights: Tensor) -> Steps[Tensor]:
        """Everyone gets every message and adds them up."""
        frames = pack_frames(message, weights)
        lengths = self._lengths(message, frames)
        blobs = yield from self.links.all_gather(torch.cat(frames), lengths.sum(1).tolist())
        everyone, shares = unpack_frames(_split(blobs, lengths), message)
        return message.codec.total(everyone, shares, self.in_order)

    def all_reduce(self, message: Message, weights: Tensor) -> Steps[Tensor]:
        """Messages that sum are added on the way, where that keeps what is asked: full width, any order. Else every
        process adds up one stretch of them in full width and hands on the sum: as many bytes as a ring all-reduce."""
        codec = message.codec
        flat = {n: b.flatten(1) for n, b in message.buffers.items()}
        sums: dict[str, Tensor] = {}
        for dtype in dict.fromkeys(b.dtype for b in flat.values()):  # in the same order everywhere
            names = [n for n, b in flat.items() if b.dtype == dtype]
            rows = [flat[n] for n in names]
            numbers = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
            if dtype == message.dtype and not self.in_order:
                total = yield from self.links.all_reduce(weighted_sum(numbers, weights))
            else:
                total = yield from self._owners(numbers, weights, message.dtype)
            pieces = torch.split(total, [r.shape[1] for r in rows])
            sums |= {n: p.view(1, *message.buffers[n].shape[1:]) for n, p in zip(names, pieces, strict=True)}
        ordered = {n: sums[n] for n in message.buffers}
        return codec.summands(replace(message, buffers=ordered, info_bits=0.0))[0]

    def _owners(self, numbers: Tensor, weights: Tensor, wide: torch.dtype) -> Steps[Tensor]:
        """[W, m] -> sum_n w_n numbers_n, [m], added in ``wide`` and rounded once."""
        links, (workers, m) = self.links, numbers.shape
        width = -(-m // links.processes)
        padded = torch.nn.functional.pad(numbers, (0, width * links.processes - m)) if m % links.processes else numbers
        blocks = padded.view(workers, links.processes, width).transpose(0, 1).contiguous()  # [P, W, width]
        size = workers * width * numbers.element_size()
        shares = self._everyones(weights, wide)
        received = yield from links.all_to_all(list(torch.split(_bytes(blocks), size)), [size] * links.processes)
        rows = torch.cat(received).view(numbers.dtype).view(-1, width).to(wide)
        total = narrowed(weighted_sum(rows, shares, self.in_order), numbers.dtype)
        pieces = yield from links.all_gather(_bytes(total))
        return torch.cat(pieces).view(numbers.dtype)[:m]

    def _everyones(self, weights: Tensor, wide: torch.dtype) -> Tensor:
        """The weights of all N workers; asked for again only if the algorithm has others than the last time, which
        it then has at all processes."""
        if self._known is None or self._known[0] is not weights or self._known[1] != weights._version:
            exact = self.links.counts(weights.double().cpu().view(torch.int64))
            self._known = weights, weights._version, exact.flatten().view(torch.float64).to(weights.device)
        return self._known[2].to(wide)

    def _lengths(self, message: Message, frames: Sequence[Tensor]) -> Tensor:
        """Bytes of every worker's frame, [P, W]; asked for only where they differ."""
        own = torch.tensor([len(f) for f in frames])
        return self.links.counts(own) if message.lengths else own.expand(self.links.processes, -1)

    def server(self, message: Message, weights: Tensor) -> Steps[Tensor]:
        """Messages go to rank 0, and what they add up to comes back. Messages that sum are answered by their sum."""
        links, codec = self.links, message.codec
        frames = pack_frames(message, weights)
        lengths = self._lengths(message, frames)
        blob, answer = torch.cat(frames), torch.empty(0, dtype=torch.uint8)
        if links.rank:
            yield from links.swap({0: blob}, {}, blob)
        else:
            sizes = {p: int(lengths[p].sum()) for p in range(1, links.processes)}
            others = yield from links.swap({}, sizes, blob)
            everyone, shares = unpack_frames(_split([blob, *(others[p] for p in sizes)], lengths), message)
            if codec.sums:
                summed = codec.summed(everyone, shares, self.in_order)
                answer = pack_frames(summed, shares[:1])[0]
            else:
                answer = pack_aggregate(codec.finalize(everyone, codec.total(everyone, shares, self.in_order)))
        size = len(frames[0]) if codec.sums else int(links.counts(torch.tensor([len(answer)]))[0, 0])
        if links.rank:
            answer = (yield from links.swap({}, {0: size}, blob))[0]
        else:
            yield from links.swap({p: answer for p in range(1, links.processes)}, {}, blob)
        if codec.sums:
            return codec.summands(unpack_frames([answer], message)[0])[0]
        return unpack_aggregate(answer, message.dim, message.dtype)

    def two_phase(self, message: Message, weights: Tensor) -> Steps[Tensor]:
        """Every process owns a stretch of the vector: it gets everyone's message for it and hands on the aggregate."""
        links, codec = self.links, message.codec
        bounds = stretches(message.dim, links.processes)
        width = [b - a for a, b in pairwise(bounds)]
        cut = codec.cut(message, bounds)
        frames = [pack_frames(m, weights) if n else [] for m, n in zip(cut, width, strict=True)]
        lengths = torch.tensor([[len(f) for f in each] or [0] * message.workers for each in frames])
        if any(m.lengths for m in cut):
            mine = links.counts(lengths.flatten()).view(links.processes, links.processes, -1)[:, links.rank]
        else:
            mine = lengths[links.rank].expand(links.processes, -1)
        nothing = torch.empty(0, dtype=torch.uint8, device=weights.device)
        blobs = [torch.cat(each) if each else nothing for each in frames]
        received = yield from links.all_to_all(blobs, mine.sum(1).tolist())
        answer = nothing
        if width[links.rank]:
            everyone, shares = unpack_frames(_split(received, mine), cut[links.rank])
            answer = pack_aggregate(codec.finalize(everyone, codec.total(everyone, shares, self.in_order)))
        sizes = links.counts(torch.tensor([len(answer)]))[:, 0].tolist()
        answers = yield from links.all_gather(answer, sizes)
        return torch.cat([unpack_aggregate(a, n, message.dtype) for a, n in zip(answers, width, strict=True) if n])


def _split(blobs: Sequence[Tensor], lengths: Tensor) -> list[Tensor]:
    """The frames of all workers from what each process sent, one after the other; ``lengths`` [P, W]."""
    return [f for blob, row in zip(blobs, lengths.tolist(), strict=True) for f in torch.split(blob, row)]


def _bytes(x: Tensor) -> Tensor:
    return x.flatten().view(torch.uint8)
