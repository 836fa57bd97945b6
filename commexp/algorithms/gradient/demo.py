"""DeMo: sign SGD on the largest parts of momenta that are never synchronised."""

from __future__ import annotations

from dataclasses import dataclass

from commexp.algorithms.base import Algorithm, AlgorithmContext
from commexp.algorithms.gradient.sgd import SGD
from commexp.compressors import ErrorFeedback, Feedback


@dataclass
class DeMo(SGD):
    """Every round, on every worker n = 1..N with weight w_n = 1/N and the learning rate eta = lr_t:

        m_n <- beta m_n + eta g_n                          g_n = grad f_n(x) on one batch; m_n = 0 at first
        q_n = C(m_n);   m_n <- m_n - q_n                   C: the compressor
        x   <- (1 - eta weight_decay) x - eta sign(sum_n w_n q_n)

    In the paper C keeps the k = 32 largest DCT-II coefficients of every chunk (``compress=dct_chunked``); the authors'
    code divides each coefficient by the workers that sent it (``compress.combine=senders``). The momenta are of each
    worker alone. They are the residual of ErrorFeedback with decay ``beta``, e_n = beta m_n, whose input is eta g_n:

        a_n = eta g_n + e_n;   q_n = C(a_n);   e_n <- beta (a_n - q_n)

    ``beta`` = 0: no momenta; with C = identity, whatever beta, sign SGD. For the other fields see GradientMethod.
    Source: Peng, Quesnelle and Kingma, Decoupled Momentum Optimization, arXiv 2411.19870, algorithm 1, and
    github.com/bloc97/DeMo. Raises ValueError for a beta out of range, another optimizer, and for beta > 0 around a C
    that is unbiased and does not contract.
    """

    state = "compressor=codec"
    keeps_residual = True
    overlaps_gradient = False
    theoretical_step = Algorithm.theoretical_step
    optimizer: str = "sign"
    beta: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer != "sign":
            raise ValueError(f"optimizer={self.optimizer}: DeMo takes the sign of the mean; give sign")
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta={self.beta}: must lie in [0, 1); 0.999 is usual")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.codec = context.compressor
        if self.beta and self.codec.expands:
            raise ValueError(
                f"algo.beta={self.beta}: {self.codec.name} is unbiased and does not contract, so the momenta would "
                "grow without bound; give algo.beta=0, or another compressor"
            )
        if self.beta:
            self.codec = ErrorFeedback(self.codec, Feedback(decay=self.beta))

    def round(self, t: int) -> None:
        comm, rate = self.context.comm, self.rate(t)
        summed = comm.begin(self.codec, self.weights, len(self.x))
        _, gradient = self.gradient(self.x.expand(len(comm.worker_ids), -1), t)
        self.update.step(self.x, summed.finish(gradient * rate), rate, t)
