"""All-reduce: messages are added on the way."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from commexp.comm.exchanges.base import Aggregation
from commexp.comm.links import PendingTransfer
from commexp.comm.transport import Transport, as_bytes
from commexp.compressors import Compressor, Message
from commexp.compressors.base import narrowed, weighted_sum
from commexp.network.coding import CodedTraffic


class AllReduce(Aggregation):
    """A ring. Each worker forwards 2 (n-1)/n S bytes, so 2 (n-1) S in all, in 2 (n-1) hops."""

    name = "all_reduce"
    bucketed = True

    def check(self, codec: Compressor) -> None:
        if not codec.sums:
            raise ValueError(
                f"exchange={self.name}: messages of {codec.name} cannot be added on the way; give all_gather or server"
            )

    def candidate(self, codec: Compressor) -> bool:
        return codec.sums

    def hops(self, workers: int) -> int:
        return 2 * (workers - 1)

    def cost(self, workers: int, up: int, down: int) -> int:
        return 2 * (workers - 1) * up

    def wire(self, worker: int, size: int, workers: int) -> int:
        """Shares of equal messages add up to ``cost``, to the byte."""
        total = self.cost(workers, size, size)
        return (worker + 1) * total // workers - worker * total // workers

    def coded(self, traffic: CodedTraffic) -> tuple[float, float]:
        """The sum of the messages is decoded once."""
        return 1.0, 1.0

    def carry(self, over: Transport, message: Message, weights: Tensor) -> PendingTransfer[Tensor]:
        """The library's all-reduce where it keeps full width and any order will do. Else every process adds up a slice
        of the numbers in full width and hands on the sum, which takes as many bytes as a ring."""
        codec = message.codec
        flat = {n: b.flatten(1) for n, b in message.buffers.items()}
        sums: dict[str, Tensor] = {}
        for dtype in dict.fromkeys(b.dtype for b in flat.values()):  # in the same order everywhere
            names = [n for n, b in flat.items() if b.dtype == dtype]
            rows = [flat[n] for n in names]
            numbers = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
            if dtype == message.dtype and not over.in_order:
                total = yield from over.links.all_reduce(weighted_sum(numbers, weights))
            else:
                total = yield from self._by_slices(over, numbers, weights, message.dtype)
            pieces = torch.split(total, [r.shape[1] for r in rows])
            sums |= {n: p.view(1, *message.buffers[n].shape[1:]) for n, p in zip(names, pieces, strict=True)}
        ordered = {n: sums[n] for n in message.buffers}
        return codec.summands(replace(message, buffers=ordered, info_bits=0.0))[0]

    def _by_slices(
        self, over: Transport, numbers: Tensor, weights: Tensor, wide: torch.dtype
    ) -> PendingTransfer[Tensor]:
        """[W, m] -> sum_n w_n numbers_n, [m], added in ``wide`` and rounded once."""
        links, (workers, m) = over.links, numbers.shape
        width = -(-m // links.processes)
        padded = torch.nn.functional.pad(numbers, (0, width * links.processes - m)) if m % links.processes else numbers
        blocks = padded.view(workers, links.processes, width).transpose(0, 1).contiguous()  # [P, W, width]
        size = workers * width * numbers.element_size()
        all_weights = over.all_weights(weights, wide)
        received = yield from links.all_to_all(list(torch.split(as_bytes(blocks), size)), [size] * links.processes)
        rows = torch.cat(received).view(numbers.dtype).view(-1, width).to(wide)
        total = narrowed(weighted_sum(rows, all_weights, over.in_order), numbers.dtype)
        pieces = yield from links.all_gather(as_bytes(total))
        return torch.cat(pieces).view(numbers.dtype)[:m]
