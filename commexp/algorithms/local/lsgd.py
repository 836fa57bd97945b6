"""Leader SGD: the exchange pulls workers towards the best worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from commexp.algorithms.local.non_average import NonAverageConsensus
from commexp.comm.exchanges import BROADCAST, Exchange


@dataclass
class LSGD(NonAverageConsensus):
    """Soft consensus with x_C = x_n of the leader, the worker with the lowest training loss, averaged over the round's
    local batches (the paper leaves open which loss). The workers gather the losses; then the leader broadcasts its
    model.

    Source: Teng et al., arXiv 1905.10395, algorithm 1, with one group of workers.
    """

    centre_by: ClassVar[Exchange] = BROADCAST

    def centre(self, t: int, x: Tensor) -> Tensor:
        comm = self.context.comm
        leader = int(comm.gather(self.losses[:, None])[:, 0].argmin())
        return comm.broadcast(x, leader)
