"""Exact gradient coding: the full gradient from the workers that answer first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commexp.algorithms.base import Redundancy
from commexp.algorithms.coded.base import CodedMethod
from commexp.allocations import decoding
from commexp.comm import ClosingRule

if TYPE_CHECKING:
    from commexp.allocations import Assignment


@dataclass
class ExactCoding(CodedMethod):
    """d workers hold every subset; B is the allocation's code. Every round:

        l_n = sum_{k held by n} B[n, k] grad f_k(x)
        g   = (1/M) sum_{n answers} a_n C(l_n)                    a B = (1, ..., 1), so g = grad F for C = identity

    A round closes after ``first`` answers; null means N - d + 1, which suffice whichever workers they come from. If
    fewer workers are on time, the round waits for late ones. With a smaller ``first``, or a ``deadline``, a round whose
    answers do not determine such an a skips its step. It needs allocation=fractional or cyclic. For the other fields
    see CodedMethod. Source: Tandon, Lei, Dimakis and Karampatziakis, arXiv 1612.03301, algorithms 1 and 2.
    """

    def coefficients(self, redundancy: Redundancy) -> np.ndarray:
        self.code = redundancy.code()
        return self.code

    def closing_rule(self, assignment: Assignment | None) -> ClosingRule:
        assert assignment is not None
        enough = assignment.workers - int(assignment.copies.min()) + 1
        return ClosingRule(enough if self.first is None else self.first, self.deadline)

    def weights(self, answered: np.ndarray) -> np.ndarray | None:
        weights = decoding(self.code, answered)
        return None if weights is None else weights / self.redundancy.assignment.subsets
