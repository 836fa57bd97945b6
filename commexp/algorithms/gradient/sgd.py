"""Synchronous SGD with compressed gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.gradient.base import GradientMethod
from commexp.algorithms.theory import Constants


@dataclass
class SGD(GradientMethod):
    """Every round, on every worker n = 1..N with weight w_n = 1/N:

        g_n = grad f_n(x)                           one batch
        g   = sum_n w_n C(g_n)                      one exchange; C is the compressor, with its error feedback
        u   <- momentum u + g + weight_decay x
        x   <- x - lr_t u                           (nesterov: x <- x - lr_t (g + weight_decay x + momentum u))

    or AdamW's step on g. All workers have the same x, so a process stores it once, [J], and expands it to [W, J]
    without a copy. With C = identity this is dense data-parallel SGD; with Top-k and error feedback, sparsified SGD
    with memory (arXiv 1809.07599); with RegTop-k, arXiv 2501.05633, algorithm 1. For the fields see GradientMethod.
    """

    state = "x optimizer=update compressor=context.compressor"
    overlaps_gradient = True

    def setup(self, context: AlgorithmContext) -> None:
        self.context = context
        self.x = context.start
        self.update = self.make_optimizer()
        comm = context.comm
        self.weights = self.x.new_full((len(comm.worker_ids),), 1.0 / comm.size)

    def theoretical_step(self, constants: Constants) -> float:
        """1/(L + weight_decay), of gradient descent on F + (weight_decay / 2) ||x||^2."""
        constants.need_whole()
        if self.optimizer != "sgd" or self.momentum or self.sam:
            raise ValueError(
                "lr=theory: the step is that of gradient descent; give algo.optimizer=sgd algo.momentum=0 algo.sam=0"
            )
        if constants.omega != 0:
            raise ValueError("lr=theory: no step is known of SGD with compression; give compress=none, or algo=ef21")
        return 1 / (constants.L + self.weight_decay)

    def round(self, t: int) -> None:
        comm = self.context.comm
        summed = comm.begin(self.context.compressor, self.weights, len(self.x))
        _, gradient = self.gradient(self.x.expand(len(comm.worker_ids), -1), t, summed.ready)
        self.update.step(self.x, summed.finish(gradient), self.rate(t), t)

    def model(self) -> Tensor:
        return self.x
