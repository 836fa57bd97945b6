"""Eigenvalues of large sparse mixing matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from commexp.topologies.mixing import Mixing

ROUNDING = 1e-13  # a norm below this counts as zero


def start_vector(size: int) -> np.ndarray:
    """A fixed vector orthogonal to the average, so that every call gives the same digits."""
    v = np.random.default_rng(0).standard_normal(size)
    return np.asarray(v - v.mean())


def second_symmetric(mixing: Mixing) -> float:
    """The largest |eigenvalue| of a large symmetric W orthogonal to the average, by Lanczos. If Lanczos does not
    converge because the gap is small: by shift-invert just above 1, with the gap computed from the eigenvector v as sum
    w_nm (v_n - v_m)^2 / |v|^2, which avoids cancellation."""
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, splu

    W, size = mixing.matrix, mixing.size
    shape = (size, size)
    start = start_vector(size)
    deflated = LinearOperator(shape, matvec=lambda x: W @ x - x.mean(), dtype=np.float64)
    if np.linalg.norm(deflated @ start) < ROUNDING * np.linalg.norm(start):
        return 0.0
    try:
        eigenvalues = eigsh(
            deflated, k=1, which="LM", v0=start, ncv=32, maxiter=60, tol=1e-9, return_eigenvectors=False
        )
        return float(abs(eigenvalues[0]))
    except ArpackNoConvergence:
        pass
    shift = 1e-10
    shifted = (eye_array(size) * (1 + shift) - W).tocsc()
    factors = splu(shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def solve(x: np.ndarray) -> np.ndarray:
        y = factors.solve(x - x.mean())
        return np.asarray(y - y.mean())

    inverse = LinearOperator(shape, matvec=solve, dtype=np.float64)
    v = eigsh(inverse, k=1, which="LM", v0=start, tol=1e-12)[1][:, 0]
    v = v - v.mean()
    n, m, weights = mixing.links()
    second = 1 - float(weights @ (v[n] - v[m]) ** 2 / (v @ v))
    if lowest_possible(W) > -second:
        return second
    return max(second, -mixing.smallest_eigenvalue)


def smallest(mixing: Mixing) -> float:
    """The smallest eigenvalue, by Lanczos, or by shift-invert just below the Gershgorin bound."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    start = start_vector(mixing.size)
    try:
        return float(
            eigsh(mixing.matrix, k=1, which="SA", v0=start, ncv=32, maxiter=60, tol=1e-8, return_eigenvectors=False)[0]
        )
    except ArpackNoConvergence:
        below = lowest_possible(mixing.matrix) - 1e-7
        eigenvalues = eigsh(mixing.matrix.tocsc(), k=1, sigma=below, v0=start, tol=1e-8, return_eigenvectors=False)
        return float(eigenvalues[0])


def lowest_possible(matrix: csr_array) -> float:
    """A lower bound of the eigenvalues of a symmetric matrix (Gershgorin)."""
    diagonal = matrix.diagonal()
    return float((diagonal + np.abs(diagonal) - np.asarray(abs(matrix).sum(axis=1)).ravel()).min())
