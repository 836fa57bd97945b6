"""MGRAWA: an average with larger weights for workers in flat regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.gradient.base import row_norms
from commexp.algorithms.local.non_average import NonAverageConsensus
from commexp.compressors import NoCompression


@dataclass
class MGRAWA(NonAverageConsensus):
    """Soft consensus with x_C = sum_n w_n x_n, where w_n is proportional to 1 / h_n. h_n is the norm of the gradient at
    x_n on one random batch, the same for all workers, smoothed over rounds t = 1, 2, ...

        m_n <- b m_n + (1 - b) ||grad f(x_n)||,     h_n = m_n / (1 - b^t)            b = ``smoothing``, 0.9^8

    The workers gather the norms and then sum the weighted models. The method costs one more gradient per round, on a
    batch as large as a worker's, or on all samples if workers use full batches.

    Source: Dimlioglu and Choromanska, arXiv 2403.04206 (GRAWA), model level.
    """

    worker_state = "smoothed"
    smoothing: float = 0.43046721

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing={self.smoothing}: must lie in [0, 1); 0.9^8 = 0.43 is usual")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.dense = NoCompression()
        self.smoothed = self.x.new_zeros(len(self.x))  # m_n

    def centre(self, t: int, x: Tensor) -> Tensor:
        comm, b = self.context.comm, self.smoothing
        _, gradient = self.context.problem.common_gradient(self.x, self.ends[t + 1] - 1)
        self.smoothed = b * self.smoothed + (1 - b) * row_norms(gradient)
        norms = comm.gather(self.smoothed[:, None])[:, 0] / (1 - b ** (t + 1))
        inverse = 1 / norms.clamp(min=torch.finfo(norms.dtype).tiny)
        shares = inverse / inverse.max()
        own = (shares / shares.sum())[list(comm.worker_ids)]
        return comm.aggregate(self.dense.encode(x), own)

    def common(self) -> float:
        """The size of the common batch relative to a worker's batch."""
        return self.context.problem.common_samples() / self.context.problem.samples_per_step

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        return [batches + self.common() for batches in super().batches_of(lengths)]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        return [gradients + self.common() for gradients in super().gradients_of(lengths)]
