"""Plain SGD that ignores late workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commexp.algorithms.base import Redundancy
from commexp.algorithms.coded.base import CodedMethod


@dataclass
class IgnoreStragglers(CodedMethod):
    """Every worker n holds M/N subsets that no other worker holds. Every round, with A the number of workers that
    answer:

        l_n = (N/M) sum_{k held by n} grad f_k(x)
        g   = (1/A) sum_{n answers} C(l_n)                        no step without answers

    There is no redundancy: the data of a worker that is always late are never used. For the fields see CodedMethod.
    """

    def coefficients(self, redundancy: Redundancy) -> np.ndarray:
        held = redundancy.assignment
        if held.copies.max() > 1:
            raise ValueError("allocation: algo=ignore cannot use copies of a subset; give allocation=single")
        return held.held * (held.workers / held.subsets)

    def weights(self, answered: np.ndarray) -> np.ndarray | None:
        return answered / answered.sum() if answered.any() else None
