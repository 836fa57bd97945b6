"""An all-reduce of quantised messages: the sum is quantised again on its way back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.comm.exchanges.base import Bytes
from commexp.comm.exchanges.two_phase import TwoPhase
from commexp.comm.frames import pack_frames, unpack_frames
from commexp.comm.links import Links
from commexp.compressors import Compressor, Message
from commexp.network.coding import CodedTraffic


class QuantisedAllReduce(TwoPhase):
    """Two phases. Every worker owns a shard of the vector: it gets the n-1 other workers' messages for it, decodes
    them, adds them up in full width, encodes the sum with the same codec C and sends that message to the n-1 others,
    which decode it. So every worker has C(sum_n w_n decode(message_n)), for 2 (n-1) S bytes in all and n-1 hops in
    each phase.

    What the second C loses no error feedback makes up for. Sums run in worker order, because a last digit can decide
    between two levels, and codecs draw random numbers by place, so that the aggregate has the same bits wherever the
    vector is cut.
    Source: INTELLECT-1 Technical Report, arXiv 2412.01152 (section on int8 all-reduce); torchft's
    allreduce_quantized.
    """

    name = "quantised_all_reduce"
    sizes_travel = False
    exact = False

    def check(self, codec: Compressor) -> None:
        if not codec.requantises:
            raise ValueError(
                f"exchange={self.name}: messages of {codec.name} cannot be summed and encoded again block by block; "
                "give auto, or compress=kbit, fp8 or fp4 with scope=model"
            )

    def candidate(self, codec: Compressor) -> bool:
        """It changes the aggregate, which no choice by bytes may do."""
        return False

    def aggregate_payload(self, codec: Compressor, dim: int, itemsize: int, workers: int) -> int:
        return codec.payload(dim, itemsize)

    def down(self, message: Message, aggregate: Tensor, workers: int) -> Bytes:
        sent = message.sizes[0]  # shards begin where blocks do, so their messages add up to one of the whole vector
        return Bytes(message.info_bits / message.workers / 8, sent, (workers - 1) * sent)

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]:
        """A worker encodes the sum of its shard once more, and decodes n of them."""
        return (1 / traffic.workers, 1.0) if traffic.direction == "down" else (1.0, 1.0)

    def total(self, message: Message, weights: Tensor, in_order: bool) -> Tensor:
        again = self._sum(message, weights, 0)
        return again.codec.decode(again)[0]

    def _sum(self, messages: Message, weights: Tensor, start: int) -> Message:
        codec = messages.codec
        return codec.requantise(codec.total(messages, weights, in_order=True), messages, start)

    def sum_sizes(self, links: Links, own: Tensor, frames: Sequence[Sequence[Tensor]]) -> list[int]:
        """A sum is as long as a message for the same shard."""
        return [len(each[0]) if each else 0 for each in frames]

    def pack_sum(self, messages: Message, weights: Tensor, start: int, in_order: bool) -> Tensor:
        return pack_frames(self._sum(messages, weights, start), torch.ones(1))[0]

    def unpack_sum(self, packed: Tensor, shard: Message) -> Tensor:
        again, _ = unpack_frames([packed], shard)
        return again.codec.decode(again)[0]
