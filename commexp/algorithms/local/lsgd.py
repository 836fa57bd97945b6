"""Leader SGD: pulled towards the best worker."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.local.non_average import NonAverageConsensus


@dataclass
class LSGD(NonAverageConsensus):
    """Soft consensus with x_C the x_n of the leader, the worker whose training loss is lowest: the mean over the
    round's local batches (which loss is ours to choose). The losses go to everyone, then the leader's model does.

    Source: Teng et al., arXiv 1905.10395, algorithm 1, with one group of workers.
    """

    def centre(self, t: int) -> Tensor:
        comm = self.context.comm
        leader = int(comm.gather(self.losses[:, None])[:, 0].argmin())
        return comm.broadcast(self.x, leader)
