"""Stochastic gradient coding, with real values or one bit per entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from commexp.algorithms.base import Redundancy
from commexp.algorithms.coded.base import CodedMethod
from commexp.allocations import scaled


@dataclass
class GradientCoding(CodedMethod):
    """d_k workers hold subset k; each worker fails to answer with probability p. Every round:

        l_n = sum_{k held by n} grad f_k(x) / (d_k (1 - p))
        g   = (1/M) sum_{n answers} C(l_n)              E g = grad F for an unbiased C; no step without answers

    C = ``onebit``: 1-bit gradient coding (Li and Skoglund, arXiv 2403.14716); C = ``none``: stochastic gradient coding
    (Bitar, Wootters and El Rouayheb, arXiv 1905.05383). Other compressors work as well. ``p``: null means the share of
    late workers in the straggler model, or 1 - first/N if ``first`` is given; with a deadline p must be given. For the
    other fields see CodedMethod.
    """

    p: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p is not None and not 0 <= self.p < 1:
            raise ValueError(f"p={self.p}: out of range; give a probability in [0, 1), or null")
        if self.p is None and self.deadline is not None:
            raise ValueError("p=null: the share of workers that miss the deadline is not known; give that share")

    def coefficients(self, redundancy: Redundancy) -> np.ndarray:
        workers, p = redundancy.assignment.workers, self.p
        if p is None:
            p = redundancy.late_share if self.first is None else 1 - self.first / workers
        if not p < 1:
            raise ValueError("straggler: all workers are late; give fewer late workers, or straggler=none")
        return scaled(redundancy.assignment, p)

    def weights(self, answered: np.ndarray) -> np.ndarray | None:
        return answered / self.redundancy.assignment.subsets if answered.any() else None
