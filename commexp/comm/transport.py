"""What the exchanges have in common among processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.comm.links import Links
from commexp.compressors import Message


class Transport:
    """P processes that host W workers each, connected by ``links``.

    ``in_order``: sums run worker by worker, so that the result has the same bits however the workers are spread over
    processes.
    """

    def __init__(self, links: Links, in_order: bool) -> None:
        self.links, self.in_order = links, in_order
        self._known: tuple[Tensor, int, Tensor] | None = None

    def all_weights(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """[W] of this process's workers -> [N] of all workers. The processes are asked again only if these weights are
        another tensor than the last time, or have changed; an algorithm changes them at all processes together."""
        if self._known is None or self._known[0] is not weights or self._known[1] != weights._version:
            exact = self.links.counts(weights.double().cpu().view(torch.int64))
            self._known = weights, weights._version, exact.flatten().view(torch.float64).to(weights.device)
        return self._known[2].to(dtype)

    def frame_lengths(self, message: Message, frames: Sequence[Tensor]) -> Tensor:
        """Bytes of every worker's frame, [P, W]. The processes are asked only if lengths differ."""
        own = torch.tensor([len(f) for f in frames])
        return self.links.counts(own) if message.lengths else own.expand(self.links.processes, -1)


def split_frames(blobs: Sequence[Tensor], lengths: Tensor) -> list[Tensor]:
    """The frames of all workers from what each process sent, one after the other; ``lengths`` [P, W]."""
    return [f for blob, row in zip(blobs, lengths.tolist(), strict=True) for f in torch.split(blob, row)]


def as_bytes(x: Tensor) -> Tensor:
    """[...] -> uint8 [bytes]."""
    return x.flatten().view(torch.uint8)
