"""NoLoCo: DiLoCo without an exchange of all workers; random pairs average instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext, Sent
from commexp.algorithms.local.base import LocalMethod
from commexp.comm.exchanges import GOSSIP
from commexp.compressors import Compressor, NoCompression


@dataclass
class NoLoCo(LocalMethod):
    """Every worker n has parameters x_n of its own. After ``tau`` local steps from x_n to y_n, in the round's graph, by
    default a pair for each worker, with mixing weights w_nm (1/2 for both of a pair):

        d_n <- x_n - y_n                                                    the outer gradient: old minus new
        m_n <- outer_momentum m_n - outer_lr sum_m w_nm C(d_m) + outer_lr (sum_m w_nm x_m - x_n)
        x_n <- x_n + m_n                                                    heavy ball; the worker continues from x_n

    A worker sends 2 J numbers, d_n and x_n, to its neighbour; the compressor C, with its error feedback, shortens d_n.
    With two workers the x_n stay equal, and it is DiLoCo with heavy ball. The model that is evaluated is the average of
    the x_n, which is not booked.

    Source: Kolehmainen et al., NoLoCo, arXiv 2506.10911, section 3, and gensyn-ai/noloco (outer_momentum 0.5, outer_lr
    0.7, tau 50); the sign of d is ours. Raises ValueError for values out of range, a delay or a mix.
    """

    decentralised = True
    feeds_back = False
    worker_state = "velocity"
    optimizer: str = "adamw"
    outer_lr: float = 0.7
    outer_momentum: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr={self.outer_lr}: must be positive; 0.7 is usual")
        if not 0 <= self.outer_momentum < 1:
            raise ValueError(f"outer_momentum={self.outer_momentum}: must lie in [0, 1); 0.5 is usual")
        if self.delay or self.mix:
            raise ValueError(f"delay={self.delay}, mix={self.mix}: pairs wait for each other; give 0 for both")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.velocity = torch.zeros_like(self.x)  # m_n

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        (part,) = super().sends(t, shapes, dim, codec)
        if isinstance(codec, NoCompression):
            return [Sent(2 * part.dim, whole=True, exchange=GOSSIP)]
        return [part._replace(exchange=GOSSIP), Sent(part.dim, whole=True, exchange=GOSSIP)]

    def exchange(self, t: int) -> None:
        comm, codec, part = self.context.comm, self.codec("x", t), self.part(t)
        x = part.take(self.pulled)
        d = x - part.take(self.x)
        if isinstance(codec, NoCompression):
            mean_x, mean_d = comm.gossip(torch.cat([x, d], dim=1)).chunk(2, dim=1)
        else:
            comm.watch.to("encode")
            mean_d = comm.gossip_messages(codec.encode(d))
            mean_x = comm.gossip(x.contiguous())
        m = self.outer_momentum * part.take(self.velocity) - self.outer_lr * mean_d + self.outer_lr * (mean_x - x)
        self.velocity = part.replaced(self.velocity, m)
        self.continue_apart(t, x + m, x + m, part.take(self.average))

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        raise NotImplementedError("the exchange moves the workers")

    def centre_of_workers(self) -> Tensor:
        return self.context.comm.watched_mean(self.pulled)
