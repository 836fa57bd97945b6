"""Local SGD: average the models every tau steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.local.base import LocalMethod


@dataclass
class LocalSGD(LocalMethod):
    """After every ``tau`` local steps, x_n <- x_A on every worker. With tau = 1 and SGD without momentum it is
    synchronous SGD. With a compressor the workers send C(x_n - x_A), x_A from the last exchange: Qsparse-local-SGD.

    Source: Stich, arXiv 1805.09767, algorithm 1; Basu et al., arXiv 1906.02367 (compressed).
    """

    samples_workers = True

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        self.continue_from(t, average)
