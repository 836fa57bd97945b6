"""All-gather: every worker gets every message and adds them up."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.comm.exchanges.base import Aggregation
from commexp.comm.frames import pack_frames, unpack_frames
from commexp.comm.links import PendingTransfer
from commexp.comm.transport import Transport, split_frames
from commexp.compressors import Compressor, Message
from commexp.network.coding import CodedTraffic


class AllGather(Aggregation):
    """A ring. Each message reaches n-1 others, so (n-1) sum_i S_i bytes in all, in n-1 hops."""

    name = "all_gather"
    tolerates_stragglers = True

    def candidate(self, codec: Compressor) -> bool:
        """An all-reduce of messages that sum never takes more bytes."""
        return not codec.sums

    def hops(self, workers: int) -> int:
        return workers - 1

    def cost(self, workers: int, up: int, down: int) -> int:
        return (workers - 1) * workers * up

    def wire(self, worker: int, size: int, workers: int) -> int:
        return (workers - 1) * size

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]:
        """A worker decodes the messages of all."""
        return 1.0, float(traffic.workers)

    def carry(self, over: Transport, message: Message, weights: Tensor) -> PendingTransfer[Tensor]:
        frames = pack_frames(message, weights)
        lengths = over.frame_lengths(message, frames)
        received = yield from over.links.all_gather(torch.cat(frames), lengths.sum(1).tolist())
        messages, all_weights = unpack_frames(split_frames(received, lengths), message)
        return message.codec.total(messages, all_weights, over.in_order)
