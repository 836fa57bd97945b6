"""Margins y_i a_i^T x and their logistic loss, for dense and for sparse features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from commexp.problems.base import FEW, ProblemContext
from commexp.problems.smoothness import as_float64
from commexp.problems.sparse_rows import SparseRows


class Margins(ABC):
    """The signed samples y_i a_i; the loss of each is log(1 + exp(-margin)). ``negative`` [m]: whether y_i = -1."""

    negative: Tensor

    @property
    @abstractmethod
    def row_size(self) -> float:
        """Stored entries of a sample's vector, on average."""

    @abstractmethod
    def rows(self, samples: Tensor | None = None) -> Any:
        """The vectors y_i a_i of these samples, or of all, [m, J]: a NumPy array in float64, or a sparse matrix."""

    @abstractmethod
    def take(self, rows: Sequence[Tensor]) -> Any:
        """The batch that holds the samples rows[w] of each worker w, for ``each``."""

    @abstractmethod
    def each(self, batch: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [W, J] -> the mean loss [W] over each worker's samples at x_w, and its gradient [W, J]."""

    @abstractmethod
    def of_workers(self, batch: Any, rows: Sequence[int]) -> Any:
        """The batch of these workers alone, for ``each``; nothing that is large is copied."""

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """x [J] -> the margins of all m samples, [m]."""

    @abstractmethod
    def back(self, slopes: Tensor) -> Tensor:
        """slopes [m] -> sum_i slopes_i y_i a_i, [J]."""

    def weighted(self, shares: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """sum_i shares_i loss_i at x [J], and its gradient [J]."""
        margins = self.product(x)
        return shares @ F.softplus(-margins), self.back(-torch.sigmoid(-margins) * shares)

    def score(self, x: Tensor) -> tuple[float, float]:
        """Mean loss and accuracy; a sample with margin 0 is classified as -1."""
        margins = self.product(x)
        return float(F.softplus(-margins).mean()), float(self._is_correct(margins).double().mean())

    def accuracy(self, x: Tensor, shares: Tensor) -> float:
        """Accuracy with the weights ``shares`` [m]; the exact mean if all weights are equal."""
        correct = self._is_correct(self.product(x)).double()
        return float(correct.mean() if bool((shares == shares[0]).all()) else correct @ shares.double())

    def _is_correct(self, margins: Tensor) -> Tensor:
        return (margins > 0) | ((margins == 0) & self.negative)


PaddedBatch = tuple[Tensor, Tensor]  # [W, d, J] and each sample's weight in the mean, [W, d]
PADDING = 4  # the largest size of a padded batch, in multiples of its samples


class DenseMargins(Margins):
    """``signed`` [m, J]. ``one_by_one``: computes worker by worker, so that the bits do not depend on W."""

    def __init__(self, signed: Tensor, one_by_one: bool) -> None:
        self.signed, self.one_by_one = signed, one_by_one

    @property
    def row_size(self) -> float:
        return float(self.signed.shape[1])

    def rows(self, samples: Tensor | None = None) -> np.ndarray:
        return as_float64(self.signed if samples is None else self.signed[samples.to(self.signed.device)])

    def take(self, rows: Sequence[Tensor]) -> PaddedBatch | list[PaddedBatch]:
        """Pads shorter rows with weights of zero; if padding would dominate, returns one batch per worker."""
        longest = max(len(r) for r in rows)
        if longest * len(rows) > PADDING * sum(len(r) for r in rows):
            return [self._padded([r], len(r)) for r in rows]
        return self._padded(rows, longest)

    def _padded(self, rows: Sequence[Tensor], longest: int) -> PaddedBatch:
        index = torch.zeros(len(rows), longest, dtype=torch.long)
        weights = self.signed.new_zeros(len(rows), longest)
        for w, r in enumerate(rows):
            index[w, : len(r)], weights[w, : len(r)] = r, 1 / len(r)
        return self.signed[index.to(self.signed.device)], weights

    def of_workers(
        self, batch: PaddedBatch | list[PaddedBatch], rows: Sequence[int]
    ) -> PaddedBatch | list[PaddedBatch]:
        if isinstance(batch, list):
            return [batch[row] for row in rows]
        signed, weights = batch
        if signed[0].numel() <= FEW and not self.one_by_one:
            return signed[list(rows)], weights[list(rows)]
        sizes = (weights[list(rows)] > 0).sum(1).tolist()
        return [(signed[row, None, :size], weights[row, None, :size]) for row, size in zip(rows, sizes, strict=True)]

    def each(self, batch: PaddedBatch | list[PaddedBatch], x: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(batch, tuple) and self.one_by_one and len(x) > 1:
            batch = [(a[None], w[None]) for a, w in zip(*batch, strict=True)]
        if isinstance(batch, tuple):
            return self._of(*batch, x)
        each = [self._of(*single, row[None]) for single, row in zip(batch, x, strict=True)]
        return torch.cat([loss for loss, _ in each]), torch.cat([grad for _, grad in each])

    @staticmethod
    def _of(signed: Tensor, weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        margins = torch.bmm(signed, x[..., None]).squeeze(-1)
        slopes = -torch.sigmoid(-margins) * weights
        return (F.softplus(-margins) * weights).sum(1), torch.bmm(slopes[:, None], signed).squeeze(1)

    def product(self, x: Tensor) -> Tensor:
        return self.signed @ x

    def back(self, slopes: Tensor) -> Tensor:
        return slopes @ self.signed


class SparseMargins(Margins):
    """A scipy matrix [m, J] in compressed rows, on the CPU; never made dense."""

    def __init__(self, signed: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.signed, self.device, self.dtype = signed, device, dtype

    @property
    def row_size(self) -> float:
        return float(self.signed.nnz / self.signed.shape[0])

    def rows(self, samples: Tensor | None = None) -> Any:
        return (self.signed if samples is None else self.signed[samples.numpy()]).astype(np.float64)

    def take(self, rows: Sequence[Tensor]) -> list[SparseMargins]:
        return [SparseMargins(self.signed[r.numpy()], self.device, self.dtype) for r in rows]

    def of_workers(self, batch: list[SparseMargins], rows: Sequence[int]) -> list[SparseMargins]:
        return [batch[row] for row in rows]

    def each(self, batch: list[SparseMargins], x: Tensor) -> tuple[Tensor, Tensor]:
        each = []
        for own, row in zip(batch, x, strict=True):
            count = own.signed.shape[0]
            each.append(own.weighted(row.new_full((count,), 1 / count), row))
        return torch.stack([loss for loss, _ in each]), torch.stack([grad for _, grad in each])

    def product(self, x: Tensor) -> Tensor:
        margins: Tensor = torch.from_numpy(self.signed @ x.detach().cpu().numpy())
        return margins.to(self.device, self.dtype)

    def back(self, slopes: Tensor) -> Tensor:
        gradient: Tensor = torch.from_numpy(self.signed.T @ slopes.cpu().numpy())
        return gradient.to(self.device, self.dtype)


def make_margins(features: Any, signs: Tensor, context: ProblemContext) -> Margins:
    """``features``: a tensor [m, J] or SparseRows. ``signs`` [m], -1 or 1."""
    margins: Margins
    if isinstance(features, SparseRows):
        wide = torch.empty(0, dtype=context.dtype).numpy().dtype
        scaled = features.matrix.multiply(signs.numpy()[:, None]).tocsr().astype(wide)
        margins = SparseMargins(scaled, context.device, context.dtype)
    else:
        signed = features * signs.to(features)[:, None]
        margins = DenseMargins(signed.to(context.device, context.dtype), context.deterministic)
    margins.negative = (signs < 0).to(context.device)
    return margins
