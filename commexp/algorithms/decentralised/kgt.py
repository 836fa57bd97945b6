"""K-GT: gradient tracking with several local steps between exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.decentralised.base import StepMethod, check_gamma


@dataclass
class KGT(StepMethod):
    """Every round, on every worker n, K = ``tau`` local steps from y_n = x_n along a corrected gradient, then two
    exchanges:

        y_n <- y_n - lr (g_n(y_n) + c_n)                                  K times, each with a batch of its own
        z_n = (x_n - y_n) / (K lr)
        c_n <- c_n - z_n + (W z)_n
        x_n <- (W (x - outer_lr (x - y)))_n

    W: the mixing of one exchange, however often it mixes. So c_n comes to the difference between the mean gradient of
    all workers and worker n's, and sum_n c_n stays 0. c_n = 0 before the first round: the paper begins with the exact
    difference at x_0, which takes a sum over all workers; the choice is ours. Where the schedule changes the step
    within a round, K lr is the sum of its steps.
    ``gamma``: the step of compressed gossip; with a compressor, z and x are mixed by CompressedGossip (ours).
    Source: Liu, Lin, Koloskova and Stich, arXiv 2301.01313, algorithm 1; from memory, for the search that was at hand
    gives no more of the paper than its abstract. Raises ValueError for values out of range.
    """

    tau: int = 4
    outer_lr: float = 1.0
    gamma: float = 0.1
    worker_state = "c"
    mixed_rows = ("z", "x")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gamma(self.gamma)
        if self.tau < 1:
            raise ValueError(f"tau={self.tau}: must not be less than 1; give local steps between two exchanges")
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr={self.outer_lr}: must be positive; 1 is usual")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.ends: Sequence[int] = [0, *accumulate(self.lengths(context.steps))]
        self.c = torch.zeros_like(self.x)
        self.z = torch.zeros_like(self.x)
        self.start_gossip()

    def round(self, t: int) -> None:
        y, total = self.x, 0.0
        for step in range(self.ends[t], self.ends[t + 1]):
            rate = self.rate(step)
            y = y - rate * (self.gradient(y, step) + self.c)
            total += rate
        moved = self.x - y
        self.z = moved / total
        self.c = self.c + (self.mixed("z", self.z) - self.z)
        self.x = self.mixed("x", self.x - self.outer_lr * moved)
