"""An exchange that begins while gradients are still being computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

BACKWARD = 2 / 3  # of a gradient's time: a product for the inputs, one for the weights, and one forward


def overlapped(
    begun: np.ndarray,
    ready: np.ndarray,
    gradients: float,
    ends: Sequence[float],
    carried: Callable[[float, float], float],
) -> float:
    """When the last bucket of a gradient has been exchanged among all.

    Worker n begins to compute at b_n and has its last gradient at r_n, ``begun`` and ``ready`` [N]. The last two thirds
    of that gradient's time T_n are its backward pass, in which the entries become final one after the other; e_s, of
    ``ends``, is the share of them that is final with bucket s = 1, ..., S. The buckets are exchanged one after the
    other, each when all workers have it; ``carried`` says when an exchange that begins at a moment, of a share of the
    bytes, has ended:

        T_n = (r_n - b_n) / max(1, gradients)
        d_s = carried(max(d_{s-1}, max_n r_n - 2/3 T_n (1 - e_s)), e_s - e_{s-1}),   e_0 = 0, d_0 = 0

    Returns d_S; with S = 1, carried(max_n r_n, 1).
    Source of the two thirds: Kaplan et al., arXiv 2001.08361, section 2.1 (a backward pass is twice a forward pass).
    """
    backward = BACKWARD * (ready - begun) / max(1.0, gradients)
    done = last = 0.0
    for end in ends:
        done = carried(max(done, float((ready - backward * (1 - end)).max())), end - last)
        last = end
    return done
