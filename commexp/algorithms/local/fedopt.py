"""FedOpt: an adaptive outer optimiser on the average change of the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from commexp.algorithms.gradient.optimizers import ADAPTIVE, Optimizer
from commexp.algorithms.local.diloco import DiLoCo


@dataclass
class FedOpt(DiLoCo):
    """As DiLoCo, with the outer optimisers of FedAdam, FedAdagrad and FedYogi; (b_1, b_2) = ``outer_betas``,
    e = ``outer_epsilon``, the square is entry by entry, and v = e^2 at first:

        d <- x - x_A                                    the outer gradient: old minus new
        m <- b_1 m + (1 - b_1) d
        v <- b_2 v + (1 - b_2) d^2                      outer=adam
        v <- v + d^2                                    outer=adagrad
        v <- v - (1 - b_2) d^2 sign(v - d^2)            outer=yogi
        x <- x - outer_lr m / (sqrt(v) + e)             every worker continues from x

    There is no bias correction; DiLoCo with outer=adam has one, and 1e-8 in the place of e. e, the paper's tau, is the
    degree of adaptivity: entries of d below it move in proportion to d. The paper uses b_1 = 0.9 for Adam and Yogi, 0
    for Adagrad, b_2 = 0.99 and e = 0.001; outer_lr = 0.01 is ours. FedAvgM is DiLoCo with outer=heavy_ball.

    Source: Reddi et al., arXiv 2003.00295, algorithm 2. Raises ValueError for values out of range.
    """

    outer_choices: ClassVar[tuple[str, ...]] = ADAPTIVE
    optimizer: str = "sgd"
    outer: str = "adam"
    outer_lr: float = 0.01
    outer_momentum: float = 0.0
    outer_epsilon: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outer_momentum:
            raise ValueError(
                f"outer_momentum={self.outer_momentum}: outer={self.outer} has its own; give 0 and outer_betas"
            )
        if not self.outer_epsilon > 0:
            raise ValueError(f"outer_epsilon={self.outer_epsilon}: must be positive; the paper uses 0.001")

    def make_outer(self) -> Optimizer:
        first, second = self.outer_betas
        return Optimizer(self.outer, 0.0, 0.0, False, (first, second), epsilon=self.outer_epsilon)
