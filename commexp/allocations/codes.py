"""The linear combinations of gradients that workers send, and the decoding weights of their answers."""

from __future__ import annotations

import numpy as np

from commexp.allocations.base import Assignment

TOLERANCE = 1e-8


def scaled(held: Assignment, p: float) -> np.ndarray:
    """S[n, k] / (d_k (1 - p)), [N, M]. Worker n sends its row times the gradients [M, J]. If each worker fails to
    answer with probability ``p``, the expected sum of the answers is the full sum.

    Source: Bitar, Wootters and El Rouayheb, Stochastic Gradient Coding for Straggler Mitigation, 2020. Raises
    ValueError for p outside [0, 1).
    """
    if not 0 <= p < 1:
        raise ValueError(f"p={p}: out of range; give a probability in [0, 1)")
    return held.held / (held.copies * (1 - p))


def decoding(B: np.ndarray, answered: np.ndarray) -> np.ndarray | None:
    """a [N] with a^T B = 1^T up to 1e-8 and a_n = 0 where not ``answered`` (bool [N]), with the smallest
    sum_n a_n^2 ||B[n]||^2; None if the answers do not determine the full sum."""
    norms = np.linalg.norm(B, axis=1)
    here = np.flatnonzero(np.asarray(answered, dtype=bool) & (norms > 0))
    a = np.zeros(len(B))
    if len(here):  # rows of norm 1 give a tenth of the rounding error or less
        rows = B[here] / norms[here, None]
        a[here] = np.linalg.lstsq(rows.T, np.ones(B.shape[1]), rcond=None)[0] / norms[here]
    return a if np.abs(a @ B - 1).max() <= TOLERANCE else None
