"""Smoothness and strong convexity of the workers' functions: what the step sizes of theory depend on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

SMALL = 64  # matrices of at most so many rows are diagonalised whole
PRECISION = 1e-10  # relative, of an eigenvalue that is found iteratively


class Smoothness(NamedTuple):
    """``L``: F is L-smooth. ``L_n``: f_n is L_n-smooth, for the local workers, [W], in float64. ``mu``: F is
    mu-strongly convex; 0 where F is convex and no more is known, below 0 where it may be less than that."""

    L: float
    L_n: np.ndarray
    mu: float


def largest_eigenvalue(matrix: Any) -> float:
    """Of a symmetric, positive semi-definite matrix [m, m], or a linear operator of scipy's: by Lanczos, from a fixed
    vector, so that every call gives the same digits."""
    from scipy.sparse.linalg import eigsh

    size = matrix.shape[0]
    if size <= SMALL:
        return max(0.0, float(np.linalg.eigvalsh(matrix @ np.eye(size))[-1]))
    start = np.random.default_rng(0).standard_normal(size)
    if not np.any(matrix @ start):
        return 0.0
    found = eigsh(matrix, k=1, which="LA", v0=start, tol=PRECISION, return_eigenvectors=False)
    return max(0.0, float(found[0]))


def gram_eigenvalue(rows: Any, weights: np.ndarray) -> float:
    """The largest eigenvalue of sum_i w_i a_i a_i^T. ``rows``: the a_i, [m, J], dense or sparse. ``weights``: [m]. No
    matrix of J x J entries is made, but products with the rows."""
    from scipy.sparse.linalg import LinearOperator

    roots = np.sqrt(np.asarray(weights, np.float64))
    samples, dim = rows.shape
    if samples <= dim:

        def product(v: np.ndarray) -> np.ndarray:
            return np.asarray(roots * (rows @ (rows.T @ (roots * v))))
    else:

        def product(v: np.ndarray) -> np.ndarray:
            return np.asarray(rows.T @ (roots * (roots * (rows @ v))))

    size = min(samples, dim)
    return largest_eigenvalue(LinearOperator((size, size), matvec=product, matmat=_columns(product), dtype=np.float64))


def _columns(product: Any) -> Any:
    return lambda block: np.stack([product(column) for column in block.T], axis=1)


def as_float64(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()
