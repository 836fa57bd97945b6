"""What a worker sends of the gradients that it holds, and what those that answer are weighted with."""

from __future__ import annotations

import numpy as np

from commexp.allocations.base import Held
from commexp.allocations.cyclic import Cyclic
from commexp.allocations.fractional import FractionalRepetition
from commexp.seeding import numpy_generator

KINDS = {"fractional": FractionalRepetition, "cyclic": Cyclic}
TOLERANCE = 1e-8


def scaled(held: Held, p: float) -> np.ndarray:
    """S[n, k] / (d_k (1 - p)), [N, M]: worker n sends its row times the gradients [M, J], and the sum over those that
    answer, each but with probability ``p``, is the full sum on average.

    Source: Bitar, Wootters and El Rouayheb, Stochastic Gradient Coding for Straggler Mitigation, 2020. Raises
    ValueError for p outside [0, 1).
    """
    if not 0 <= p < 1:
        raise ValueError(f"p={p}: out of range; give a probability in [0, 1)")
    return held.held / (held.copies * (1 - p))


def encoding(kind: str, workers: int, d: int, seed: int) -> np.ndarray:
    """B [N, N]: worker n sends B[n] times the gradients [N, J], and any N - s workers, s = d - 1, suffice for the full
    sum. B is zero where ``FractionalRepetition(d=d)`` or ``Cyclic(d=d)`` says that n does not hold k.

    fractional: zeros and ones, d a divisor of N; also survives more stragglers, as long as one of each group answers.
    cyclic: rows in the null space of H [s, N], normal by (seed, "code") with rows that sum to zero; B[n, n] = 1;
    the largest entry grows with N and d: to some 1e3 for N = 100, d = 5.
    Source: Tandon, Lei, Dimakis and Karampatziakis, Gradient Coding, ICML 2017 (arXiv 1612.03301), algorithms 1 and 2.
    Raises ValueError for another ``kind``, and where the allocation does.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind}: unknown; give {' or '.join(KINDS)}")
    B = KINDS[kind](d=d).assign(workers, seed).astype(np.float64)
    if kind == "fractional" or d == 1:
        return B
    H = numpy_generator(seed, "code").standard_normal((d - 1, workers))
    H[:, -1] = -H[:, :-1].sum(axis=1)
    for n in range(workers):
        others = (n - np.arange(1, d)) % workers
        B[n, others] = np.linalg.solve(H[:, others], -H[:, n])
    return B


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
