"""Eigenvalues of large sparse mixing matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from commexp.topologies.mixing import Mixing

ROUNDING = 1e-13  # a norm below this counts as zero
DENSE = 2000  # workers up to which a matrix is made dense for its eigenvalues


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


def push_rate(matrices: Sequence[csr_array]) -> float:
    """The factor per round by which push-sum comes to the average in the long run, for column-stochastic P_1, ..., P_T
    in turn: the second largest |eigenvalue| of P_T ... P_1, to the power 1/T. 1, an upper bound, where Arnoldi, which
    is used above 2,000 workers, does not converge."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    size = matrices[0].shape[0]
    if size == 1:
        return 0.0
    if size <= DENSE:
        product = np.eye(size)
        for matrix in matrices:
            product = matrix @ product
        moduli = np.sort(np.abs(np.linalg.eigvals(product)))
    else:

        def apply(x: np.ndarray) -> np.ndarray:
            for matrix in matrices:
                x = matrix @ x
            return x

        start = np.random.default_rng(0).random(size)
        try:
            operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
            moduli = np.sort(np.abs(eigs(operator, k=2, which="LM", v0=start, tol=1e-6, return_eigenvectors=False)))
        except ArpackNoConvergence:
            return 1.0
    return float(min(1.0, moduli[-2]) ** (1 / len(matrices)))


def lowest_possible(matrix: csr_array) -> float:
    """A lower bound of the eigenvalues of a symmetric matrix (Gershgorin)."""
    diagonal = matrix.diagonal()
    return float((diagonal + np.abs(diagonal) - np.asarray(abs(matrix).sum(axis=1)).ravel()).min())
