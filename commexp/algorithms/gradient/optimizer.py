"""torch's optimisers on stacked vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from commexp.state import Stateful

KINDS = ("sgd", "adamw")


class Optimizer(Stateful):
    """SGD with momentum or AdamW acting in place on x, [J] or [W, J].

        sgd     u <- momentum u + g + weight_decay x;   x <- x - lr u     (nesterov: x <- x - lr (g' + momentum u))
        adamw   x <- (1 - lr weight_decay) x - lr mhat / (sqrt(vhat) + 1e-8)

    It calls the functional forms of torch.optim, because the classes import torch's compiler, which takes more than a
    second. ``buffers``: the optimiser's state by name, each of the shape of x; empty before the first step.
    """

    state = "**buffers"

    def __init__(
        self, kind: str, momentum: float, weight_decay: float, nesterov: bool, betas: tuple[float, float]
    ) -> None:
        self.kind, self.momentum, self.weight_decay, self.nesterov, self.betas = (
            kind, momentum, weight_decay, nesterov, betas,
        )  # fmt: skip
        self.buffers: dict[str, Tensor] = {}

    def step(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        """Update number ``step`` = 0, 1, ... with learning rate ``lr``; AdamW uses the number for its bias
        correction."""
        if self.kind == "sgd":
            self._sgd(x, gradient, lr)
        else:
            self._adamw(x, gradient, lr, step)

    def _sgd(self, x: Tensor, gradient: Tensor, lr: float) -> None:
        kept = [self.buffers.get("velocity")]
        sgd(
            [x],
            [gradient],
            kept,
            foreach=False,
            lr=lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            dampening=0.0,
            maximize=False,
        )
        if kept[0] is not None:
            self.buffers["velocity"] = kept[0]

    def _adamw(self, x: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        if not self.buffers:
            self.buffers = {"mean": torch.zeros_like(x), "square": torch.zeros_like(x)}
        adamw(
            [x],
            [gradient],
            [self.buffers["mean"]],
            [self.buffers["square"]],
            [],
            [torch.tensor(float(step))],  # adamw increments it
            foreach=False,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
