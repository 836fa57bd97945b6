"""What a worker sends of the gradients that it holds, and what those that answer are weighted with."""

from __future__ import annotations

import numpy as np

from commexp.allocations.base import Assignment

TOLERANCE = 1e-8


def scaled(held: Assignment, p: float) -> np.ndarray:
    """S[n, k] / (d_k (1 - p)), [N, M]: worker n sends its row times the gradients [M, J], and the sum over those that
    answer, each but with probability ``p``, is the full sum on average.

    Source: Bitar, Wootters and El Rouayheb, Stochastic Gradient Coding for Straggler Mitigation, 2020. Raises
    ValueError for p outside [0, 1).
    """
    if not 0 <= p < 1:
        raise ValueError(f"p={p}: out of range; give a probability in [0, 1)")
    return held.held / (held.copies * (1 - p))


def decoding(B: np.ndarray, answered: np.ndarray) -> np.ndarray | None:
    """a [N] with a^T B = 1^T up to 1e-8, a_n = 0 where not ``answered`` (bool [N]), of least sum_n a_n^2 ||B[n]||^2;
    None if there is none: the full sum cannot be had from those that answered."""
    norms = np.linalg.norm(B, axis=1)
    here = np.flatnonzero(np.asarray(answered, dtype=bool) & (norms > 0))
    a = np.zeros(len(B))
    if len(here):  # rows of norm 1: a tenth of the rounding errors, or less
        rows = B[here] / norms[here, None]
        a[here] = np.linalg.lstsq(rows.T, np.ones(B.shape[1]), rcond=None)[0] / norms[here]
    return a if np.abs(a @ B - 1).max() <= TOLERANCE else None
