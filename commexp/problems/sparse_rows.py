"""Sparse feature vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SparseRows:
    """m feature vectors of d floats, of which only the nonzero entries are stored.

    ``matrix``: anything that scipy.sparse.csr_array takes, [m, d].
    """

    ndim = 2

    def __init__(self, matrix: Any) -> None:
        from scipy.sparse import csr_array

        self.matrix = csr_array(matrix)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.matrix.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> SparseRows:
        """``indices``: [k], on the CPU, in any order and with repetitions."""
        return SparseRows(self.matrix[indices.numpy()])

    def dense(self, dtype: torch.dtype) -> Tensor:
        """[m, d], zeros included, on the CPU."""
        return torch.from_numpy(self.matrix.toarray()).to(dtype)
