"""A parameter server: messages go up to it, their aggregate comes down."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.comm.exchanges.base import Aggregation, Bytes
from commexp.comm.frames import pack_frames, unpack_frames
from commexp.comm.links import PendingTransfer
from commexp.comm.transport import Transport, split_frames
from commexp.compressors import Compressor, Message
from commexp.compressors.aggregate import aggregate_size, pack_aggregate, unpack_aggregate
from commexp.network.coding import CodedTraffic
from commexp.network.link import Transfer


class ParameterServer(Aggregation):
    """The server lives with worker 0: n-1 messages go up and an aggregate of A bytes comes down n-1 times, so
    sum_{i>0} S_i + (n-1) A bytes in all."""

    name = "server"
    comes_down = True
    sizes_travel = True
    central = True
    path = "star"
    tolerates_stragglers = True

    def candidate(self, codec: Compressor) -> bool:
        """Its own link carries everything, and it never takes fewer bytes."""
        return False

    def hops(self, workers: int) -> int:
        return 1

    def seconds(self, transfer: Transfer) -> float:
        """All transfers share worker 0's link; m = 1, 2, ... are the others:

        up      repeats alpha + max(B / down_0, max_m B / ((n-1) up_m))
        down    repeats alpha + max(B / up_0, max_m B / ((n-1) down_m))
        """
        pace, workers, wire, repeats, direction, _ = transfer
        of_server, of_worker = (pace.server_up, pace.down) if direction == "down" else (pace.server_down, pace.up)
        each = wire / max(1, workers - 1)
        return repeats * pace.latency / 1e3 + max(wire / of_server, each / of_worker)

    def cost(self, workers: int, up: int, down: int) -> int:
        return (workers - 1) * (up + down)

    def wire(self, worker: int, size: int, workers: int) -> int:
        return size if worker else 0

    def down(self, message: Message, aggregate: Tensor, workers: int) -> Bytes:
        """Messages that sum are answered by their sum, of a message's size."""
        if message.codec.sums:
            size, bits = message.sizes[0], message.info_bits / message.workers
        else:
            size, bits = aggregate_size(aggregate)
        return Bytes(workers * bits / 8, workers * size, (workers - 1) * size)

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]:
        """The server decodes the messages of all; the sum comes down as values."""
        return (0.0, 0.0) if traffic.direction == "down" else (1.0, float(traffic.workers))

    def finalizes(self, codec: Compressor) -> bool:
        return not codec.sums

    def carry(self, over: Transport, message: Message, weights: Tensor) -> PendingTransfer[Tensor]:
        """The server is rank 0."""
        links, codec = over.links, message.codec
        frames = pack_frames(message, weights)
        lengths = over.frame_lengths(message, frames)
        own, aggregate = torch.cat(frames), torch.empty(0, dtype=torch.uint8)
        if links.rank:
            yield from links.swap({0: own}, {}, own)
        else:
            sizes = {p: int(lengths[p].sum()) for p in range(1, links.processes)}
            others = yield from links.swap({}, sizes, own)
            blobs = [own, *(others[p] for p in sizes)]
            messages, all_weights = unpack_frames(split_frames(blobs, lengths), message)
            if codec.sums:
                aggregate = pack_frames(codec.summed(messages, all_weights, over.in_order), all_weights[:1])[0]
            else:
                aggregate = pack_aggregate(codec.finalize(messages, codec.total(messages, all_weights, over.in_order)))
        size = len(frames[0]) if codec.sums else int(links.counts(torch.tensor([len(aggregate)]))[0, 0])
        if links.rank:
            aggregate = (yield from links.swap({}, {0: size}, own))[0]
        else:
            yield from links.swap({p: aggregate for p in range(1, links.processes)}, {}, own)
        if codec.sums:
            return codec.summands(unpack_frames([aggregate], message)[0])[0]
        return unpack_aggregate(aggregate, message.dim, message.dtype)
