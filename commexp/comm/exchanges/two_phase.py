"""Two phases: every worker aggregates one shard of the vector and sends the aggregate to all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from commexp.comm.exchanges.base import Aggregation, Bytes
from commexp.comm.frames import pack_frames, unpack_frames
from commexp.comm.links import Links, PendingTransfer
from commexp.comm.transport import Transport, split_frames
from commexp.compressors import Compressor, Message
from commexp.compressors.aggregate import aggregate_size, pack_aggregate, unpack_aggregate
from commexp.network.coding import CodedTraffic


def shard_bounds(dim: int, count: int, grain: int = 8) -> list[int]:
    """Bounds of ``count`` shards of a vector of length ``dim``: multiples of ``grain`` but for the last; the last
    shards may be empty."""
    step = grain * math.ceil(dim / count / grain)
    return [min(i * step, dim) for i in range(count + 1)]


class TwoPhase(Aggregation):
    """Every worker owns a shard of the vector. It gets the n-1 other workers' messages for it, adds them up, and sends
    the sum to the n-1 others: (n-1)/n sum_i S_i + (n-1) A bytes in all, n-1 hops in each phase."""

    name = "two_phase"
    comes_down = True
    sizes_travel = True
    path = "pairs"

    def check(self, codec: Compressor) -> None:
        if not self.candidate(codec):
            reason = "sum, so an all-reduce is two-phase already" if codec.sums else "cannot be cut into shards"
            raise ValueError(f"exchange={self.name}: messages of {codec.name} {reason}; give auto or server")

    def candidate(self, codec: Compressor) -> bool:
        return codec.splittable and not codec.sums

    def hops(self, workers: int) -> int:
        return workers - 1

    def cost(self, workers: int, up: int, down: int) -> int:
        return (workers - 1) * (up + down)

    def wire(self, worker: int, size: int, workers: int) -> int:
        """Of a message whose shards are equally long; ``load`` knows each shard's length."""
        return (workers - 1) * size // workers

    def load(self, message: Message, worker_ids: Sequence[int], workers: int) -> Bytes:
        sizes = message.codec.cut_sizes(message, shard_bounds(message.dim, workers, message.codec.grain))
        sent, kept = int(sizes.sum()), int(sizes[range(len(sizes)), worker_ids].sum())
        return Bytes(message.info_bits / 8, sent, sent - kept)

    def down(self, message: Message, aggregate: Tensor, workers: int) -> Bytes:
        sent, bits = aggregate_size(aggregate, shard_bounds(len(aggregate), workers, message.codec.grain)[1])
        return Bytes(bits / 8, sent, (workers - 1) * sent)

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]:
        """A worker decodes n parts of 1/n each; the sum comes down as values."""
        return (0.0, 0.0) if traffic.direction == "down" else (1.0, 1.0)

    def finalizes(self, codec: Compressor) -> bool:
        return True

    def carry(self, over: Transport, message: Message, weights: Tensor) -> PendingTransfer[Tensor]:
        """Every process owns a shard."""
        links, codec = over.links, message.codec
        bounds = shard_bounds(message.dim, links.processes, codec.grain)
        widths = [b - a for a, b in pairwise(bounds)]
        shards = codec.cut(message, bounds)
        frames = [pack_frames(m, weights) if n else [] for m, n in zip(shards, widths, strict=True)]
        lengths = torch.tensor([[len(f) for f in each] or [0] * message.workers for each in frames])
        if any(m.lengths for m in shards):
            incoming = links.counts(lengths.flatten()).view(links.processes, links.processes, -1)[:, links.rank]
        else:
            incoming = lengths[links.rank].expand(links.processes, -1)
        nothing = torch.empty(0, dtype=torch.uint8, device=weights.device)
        blobs = [torch.cat(each) if each else nothing for each in frames]
        received = yield from links.all_to_all(blobs, incoming.sum(1).tolist())
        aggregate = nothing
        if widths[links.rank]:
            messages, all_weights = unpack_frames(split_frames(received, incoming), shards[links.rank])
            aggregate = self.pack_sum(messages, all_weights, bounds[links.rank], over.in_order)
        sizes = self.sum_sizes(links, aggregate, frames)
        aggregates = yield from links.all_gather(aggregate, sizes)
        return torch.cat([self.unpack_sum(a, m) for a, m in zip(aggregates, shards, strict=True) if m.dim])

    def sum_sizes(self, links: Links, own: Tensor, frames: Sequence[Sequence[Tensor]]) -> list[int]:
        """Bytes of each process's packed sum. ``own``: that of this process. ``frames``: what this process's workers
        have sent to each."""
        return links.counts(torch.tensor([len(own)]))[:, 0].tolist()

    def pack_sum(self, messages: Message, weights: Tensor, start: int, in_order: bool) -> Tensor:
        """The aggregate of all workers' messages for the shard that begins at entry ``start``, as bytes."""
        codec = messages.codec
        return pack_aggregate(codec.finalize(messages, codec.total(messages, weights, in_order)))

    def unpack_sum(self, packed: Tensor, shard: Message) -> Tensor:
        """The inverse, [m]. ``shard``: messages for it of some workers."""
        return unpack_aggregate(packed, shard.dim, shard.dtype)
