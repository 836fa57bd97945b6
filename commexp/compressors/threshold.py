"""Hard threshold: every entry above it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.compressors.base import Message
from commexp.compressors.sparse import Entries
from commexp.compressors.wire import index_bytes


@dataclass
class Threshold(Entries):
    """C(a) keeps the entries with |a_j| >= t and a_j != 0, as many as there are: the message's size follows the data.

    ``adaptive``: t = ``t`` max_j |a_j|, anew for each worker and round, so at least the largest entry is sent and C
    contracts with delta = 1/J; else t = ``t`` itself, and with error feedback the total error stays bounded by it.
    Source: Dutta et al., arXiv 1911.08250; Sahu et al., Rethinking gradient sparsification, arXiv 2108.00951 (fixed t).
    Raises ValueError if t is negative, or adaptive and above 1.
    """

    t: float = 0.3
    adaptive: bool = True

    variable_size = True

    def __post_init__(self) -> None:
        if self.t < 0 or (self.adaptive and self.t > 1):
            wanted = "a share of the largest magnitude in [0, 1]" if self.adaptive else "a magnitude of 0 or more"
            raise ValueError(f"t={self.t}: out of range; give {wanted}")

    def encode(self, a: Tensor) -> Message:
        magnitude = a.abs()
        largest = magnitude.amax(1, keepdim=True)
        if not bool(torch.isfinite(largest).all()):
            raise ValueError("a: holds NaN or infinity, which would be hidden or hide the rest; see on_nonfinite")
        t = largest * self.t if self.adaptive else self.t
        chosen = (magnitude >= t).logical_and_(magnitude != 0)
        return self.pack_rows(a, [row.nonzero()[:, 0] for row in chosen])

    def payload(self, dim: int, itemsize: int) -> int:
        """The most it can be: every entry."""
        return dim * itemsize + index_bytes(dim, dim)

    def delta(self, dim: int) -> float | None:
        return 1 / dim if self.adaptive else None
