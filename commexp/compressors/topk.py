"""Top-k: the k entries of largest magnitude."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.compressors.base import Message
from commexp.compressors.sparse import Sparse


@dataclass
class TopK(Sparse):
    """C(a) keeps the k entries of largest |a_j| and drops the rest; a contraction with delta = k/J.

    Source: Stich, Cordonnier and Jaggi, Sparsified SGD with Memory, arXiv 1809.07599, definition 2.1.
    """

    def encode(self, a: Tensor) -> Message:
        return self.pack(a, self.selector.largest(a, self.entries(a.shape[1])))

    def delta(self, dim: int) -> float:
        return self.entries(dim) / dim
