"""Plain SGD that goes on without those who are late."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.algorithms.base import Redundancy
from commexp.algorithms.coded.base import CodedMethod


@dataclass
class IgnoreStragglers(CodedMethod):
    """Worker n alone holds its M/N subsets. Every round, of those A workers that answer:

        l_n = (N/M) sum_{k held by n} grad f_k(x)
        g   = (1/A) sum_{n answers} C(l_n)                        no step where nobody answers

    No redundancy, so the data of those who are always late are never seen. The fields: see CodedMethod.
    """

    def coefficients(self, redundancy: Redundancy) -> np.ndarray:
        held = redundancy.assignment
        if held.copies.max() > 1:
            raise ValueError("allocation: algo=ignore has no use for copies; give allocation=single")
        return held.held * (held.workers / held.subsets)

    def weights(self, answered: np.ndarray) -> np.ndarray | None:
        return answered / answered.sum() if answered.any() else None
