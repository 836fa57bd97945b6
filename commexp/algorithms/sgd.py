"""Synchronous SGD with compressed gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.optim.sgd import sgd

from commexp.algorithms.base import Algorithm, Context
from commexp.algorithms.schedule import Schedule
from commexp.state import under_prefix, with_prefix


@dataclass
class SGD(Algorithm):
    """Every round, on every worker n = 1..N with weight w_n = 1/N:

        g_n = grad f_n(x)                           one batch
        g   = sum_n w_n C(g_n)                      one exchange; C is the compressor, with its error feedback
        u   <- momentum u + g + weight_decay x
        x   <- x - lr_t u                           (nesterov: x <- x - lr_t (g + weight_decay x + momentum u))

    lr_t = ``lr`` times the schedule's factor. All workers hold the same x, so it is kept once, [J], and seen as
    [W, J] without copies. With C = identity this is dense data-parallel SGD; with Top-k and error feedback, sparsified
    SGD with memory (arXiv 1809.07599); with RegTop-k, arXiv 2501.05633, algorithm 1.
    Raises ValueError for a hyper-parameter out of range.
    """

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be positive; give a learning rate such as 0.1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: must lie in [0, 1); 0.9 is usual")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay}: must not be negative; 5e-4 is usual")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True: needs momentum; give momentum=0.9")

    def setup(self, context: Context) -> None:
        self.context = context
        self.x = context.start.clone()
        self.velocity: Tensor | None = None  # u, from the first round with momentum on
        comm = context.comm
        self.weights = self.x.new_full((len(comm.worker_ids),), 1.0 / comm.size)

    def round(self, t: int) -> None:
        problem, comm, compressor = self.context.problem, self.context.comm, self.context.compressor
        exchange = comm.begin(compressor, self.weights, len(self.x))
        x = self.x.expand(len(comm.worker_ids), -1)
        _, gradient = problem.loss_and_grad(x, problem.batch(t), exchange.ready)
        aggregate = exchange.finish(gradient)
        buffers = [self.velocity]
        sgd(  # the optimiser class would import torch's compiler: more than a second of every start
            [self.x],
            [aggregate],
            buffers,
            foreach=False,
            lr=self.lr * self.schedule.factor(t, self.context.rounds),
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            dampening=0.0,
            maximize=False,
        )
        self.velocity = buffers[0]

    def model(self) -> Tensor:
        return self.x

    def state_dict(self) -> dict[str, Tensor]:
        velocity = {} if self.velocity is None else {"velocity": self.velocity}
        return {"x": self.x, **velocity, **with_prefix("compressor", self.context.compressor.state_dict())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.x = state["x"]
        self.velocity = state.get("velocity")
        self.context.compressor.load_state_dict(under_prefix("compressor", state))
