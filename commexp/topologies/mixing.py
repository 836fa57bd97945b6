"""Mixing matrices: the weights with which a worker averages its own and its neighbours' vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from commexp.topologies.spectrum import DENSE, ROUNDING, push_rate, second_symmetric, smallest

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TOLERANCE = 1e-9
Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


class Mixing:
    """W [N, N], sparse, float64: the next vector of worker n is sum_m W[n, m] x_m. Worker n receives x_m from all m
    with W[n, m] != 0. ``matrix``: W in canonical form (sorted indices, no duplicates, no explicit zeros).

    Rows and columns sum to 1, so that the workers come to their average; entries may be negative. With ``push`` columns
    alone need to: the sum over workers stays what it is, and push-sum finds the average; entries are then not negative,
    and those on the diagonal positive, so that push-sum never divides by 0. Raises ValueError if W is not square or not
    finite, if the sum of a row or column that must be 1 differs from it by more than 1e-9, and for such entries.
    """

    matrix: csr_array

    def __init__(self, matrix: csr_array, push: bool = False) -> None:
        from scipy.sparse import csr_array

        W = csr_array(matrix, dtype=np.float64, copy=True)
        W.sum_duplicates()
        W.eliminate_zeros()
        if W.shape[0] != W.shape[1] or not W.shape[0]:
            raise ValueError(f"{W.shape[0]} rows and {W.shape[1]} columns: not square; give a row for every worker")
        if not np.isfinite(W.data).all():
            row = int(np.searchsorted(W.indptr, np.flatnonzero(~np.isfinite(W.data))[0], side="right")) - 1
            raise ValueError(f"row {row} has an entry that is not a finite number; give finite weights")
        for name, axis in (("column", 0),) if push else (("row", 1), ("column", 0)):
            sums = np.asarray(W.sum(axis=axis)).ravel()
            wrong = np.flatnonzero(np.abs(sums - 1) > TOLERANCE)
            if len(wrong):
                kind, every = ("column", "column") if push else ("doubly", "row and every column")
                raise ValueError(
                    f"{name} {wrong[0]} sums to {sums[wrong[0]]:.12g}: not {kind} stochastic; give weights of which "
                    f"every {every} sums to 1, in full precision"
                )
        if push and not (W.data.min() >= 0 and W.diagonal().min() > 0):
            raise ValueError(
                "negative, or 0 on the diagonal: push-sum would divide by 0; give no weight below 0, and every worker "
                "a share of its own"
            )
        self.matrix = W

    @classmethod
    def _trusted(cls, matrix: csr_array) -> Mixing:
        """Skips the checks, for a matrix in canonical form."""
        made = cls.__new__(cls)
        made.matrix = matrix
        return made

    @property
    def size(self) -> int:
        return int(self.matrix.shape[0])

    @cached_property
    def symmetric(self) -> bool:
        return bool((self.matrix != self.matrix.T).nnz == 0)

    @cached_property
    def doubly_stochastic(self) -> bool:
        """Whether rows sum to 1, too."""
        return bool((np.abs(np.asarray(self.matrix.sum(axis=1)) - 1) <= TOLERANCE).all())

    @cached_property
    def degrees(self) -> np.ndarray:
        """[N]: the number of workers to which worker n sends."""
        return np.bincount(self.edges()[1], minlength=self.size)

    def edges(self) -> Edges:
        """n, m and W[n, m] of every off-diagonal entry, row by row."""
        rows, columns = _rows(self.matrix), self.matrix.indices
        off = rows != columns
        return rows[off], columns[off], self.matrix.data[off]

    def links(self) -> Edges:
        """n, m and W[n, m] of every entry with n < m, row by row: the undirected links of a symmetric W."""
        return self._links

    @cached_property
    def connected(self) -> bool:
        """Whether the graph is strongly connected."""
        return int(components(self.matrix).max()) == 0

    @cached_property
    def second_singular_value(self) -> float:
        """lambda = ||W - 11^T/N||_2, the factor by which one round shrinks distances from the average; 0 for N = 1.
        Where rows do not sum to 1: see ``push_rate``."""
        if not self.doubly_stochastic:
            return push_rate([self.matrix])
        if self.symmetric:
            return float(np.abs(self._others).max(initial=0)) if self.size <= DENSE else second_symmetric(self)
        if self.size <= DENSE:
            return float(np.linalg.norm(self.matrix.toarray() - 1 / self.size, 2))
        square = self.matrix.T @ self.matrix  # doubly stochastic; its eigenvalues are the squared singular values
        return float(np.sqrt(max(0.0, second_symmetric(Mixing(((square + square.T) / 2).tocsr())))))

    @cached_property
    def smallest_eigenvalue(self) -> float:
        """For a symmetric W; with an error of about 1e-6 above 2,000 workers. Raises ValueError if W is not
        symmetric."""
        if not self.symmetric:
            raise ValueError("the matrix is not symmetric: its eigenvalues are not real; give an undirected graph")
        if self.size <= DENSE:
            return float(self._others.min(initial=1))
        return smallest(self)

    @cached_property
    def _others(self) -> np.ndarray:
        """[N-1]: the eigenvalues of a symmetric W without that of the average, 1."""
        every = np.linalg.eigvalsh(self.matrix.toarray())
        return np.delete(every, np.argmin(np.abs(every - 1)))

    @property
    def spectral_gap(self) -> float:
        return 1 - self.second_singular_value

    def lazy(self) -> Mixing:
        """(I + W)/2: positive semi-definite if W is symmetric and non-negative."""
        from scipy.sparse import eye_array

        return Mixing(((eye_array(self.size) + self.matrix) / 2).tocsr(), push=not self.doubly_stochastic)

    def without(self, gone: np.ndarray) -> Mixing:
        """A symmetric W without the links ``gone``, a bool for each of ``links()``. The weight of a removed link moves
        to the diagonal at both its ends, so that W stays symmetric and doubly stochastic."""
        from scipy.sparse import csr_array

        indptr, indices, data, link, diagonal = self._template
        n, m, weights = self.links()
        lost = np.asarray(gone, dtype=bool)
        entries = np.where(np.append(lost, False)[link], 0.0, data)
        entries[diagonal] += np.bincount(n[lost], weights[lost], self.size)
        entries[diagonal] += np.bincount(m[lost], weights[lost], self.size)
        kept = entries != 0
        starts = np.concatenate([[0], np.cumsum(kept)]).astype(indptr.dtype)[indptr]
        made = Mixing._trusted(csr_array((entries[kept], indices[kept], starts), shape=self.matrix.shape))
        made.symmetric = True
        return made

    @cached_property
    def _links(self) -> Edges:
        n, m, weights = self.edges()
        upper = n < m
        return n[upper], m[upper], weights[upper]

    @cached_property
    def _template(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """W with all diagonal entries stored: indptr, indices, data; the index of the link of each entry (the number of
        links for the diagonal); the positions of the diagonal."""
        if not self.symmetric:
            raise ValueError("the matrix is not symmetric: its links cannot be lost in pairs; give an undirected graph")
        size = self.size
        n, m, weights = self.edges()
        workers = np.arange(size)
        rows, columns = np.append(n, workers), np.append(m, workers)
        values = np.append(weights, self.matrix.diagonal())
        order = np.lexsort((columns, rows))
        rows, columns, values = rows[order], columns[order], values[order]
        low, high, _ = self.links()
        key = np.minimum(rows, columns) * np.int64(size) + np.maximum(rows, columns)
        link = np.searchsorted(low * np.int64(size) + high, key)
        link[rows == columns] = len(low)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))]).astype(np.int32)
        return indptr, columns.astype(np.int32), values, link, np.flatnonzero(rows == columns)


def second_singular_value(mixings: Sequence[Mixing]) -> float:
    """lambda per round of a graph that changes with period T: ||W_T ... W_1 - 11^T/N||_2^(1/T); zero if the product is
    the average up to rounding. Above 2,000 workers: the largest lambda of the rounds, which is an upper bound. Where
    rows do not sum to 1: see ``push_rate``."""
    if not all(m.doubly_stochastic for m in mixings):
        return push_rate([m.matrix for m in mixings])
    if len(mixings) == 1 or mixings[0].size > DENSE:
        return max(m.second_singular_value for m in mixings)
    product = np.eye(mixings[0].size)
    for mixing in mixings:
        product = mixing.matrix @ product
    norm = float(np.linalg.norm(product - 1 / len(product), 2))
    return 0.0 if norm < ROUNDING else float(norm ** (1 / len(mixings)))


def components(matrix: csr_array) -> np.ndarray:
    """[N]: the strongly connected component of each worker."""
    from scipy.sparse.csgraph import connected_components

    labels: np.ndarray = connected_components(matrix, directed=True, connection="strong")[1]
    return labels


def _rows(matrix: csr_array) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
