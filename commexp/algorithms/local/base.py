"""What all methods with several local steps between exchanges have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.gradient.base import GradientMethod, row_norms
from commexp.state import under_prefix, with_prefix


@dataclass
class LocalMethod(GradientMethod):
    """Every round, on every worker n = 1..N: ``tau`` local steps of its own optimiser from x_n, then one exchange.

    The average x_A of the workers is followed by what they send: with s_n the place of worker n after the last
    exchange's pull, whose average is known to all, s_A,

        x_A = s_A + (1/N) sum_n C(x_n - s_n)

    C is the compressor, with its error feedback. Without compression this is the average of the x_n. With it, x_A
    and the true average a differ by e with e <- (1 - pull) e + (what C left out of this round's average), so that
    nothing adds up as long as workers are pulled to x_A. Optimiser states stay with their workers.

    In every row of metrics.csv x_A is the average of the last exchange, taken before workers are pulled or pushed. It
    is the model that is evaluated, unless the method names another. Diagnostics, both from this x_A: ``consensus``
    sum_n ||x_n - x_A||^2 with the x_n before the exchange; ``valley_width`` mean_n ||x_n - x_A|| with those after it.
    Before the first round both are 0.
    """

    tau: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau < 1:
            raise ValueError(f"tau={self.tau}: must not be less than 1; give local steps between two exchanges")

    def setup(self, context: AlgorithmContext) -> None:
        self.context = context
        comm = context.comm
        workers = len(comm.worker_ids)
        self.ends = [0, *accumulate(self.lengths(context.steps))]
        self.x = context.start.repeat(workers, 1)
        self.average = context.start.clone()  # x_A
        self.pulled = context.start.expand(workers, -1)  # s_n
        self.pulled_average = self.average  # s_A
        self.losses = self.x.new_zeros(workers)  # mean over the last round's local steps
        self.before_exchange: Tensor | None = None  # x_n before the last exchange
        self.update = self.make_optimizer()
        self.weights = self.x.new_full((workers,), 1.0 / comm.size)

    def round(self, t: int) -> None:
        steps = range(self.ends[t], self.ends[t + 1])
        self.losses = torch.zeros_like(self.losses)
        for step in steps:
            losses, gradient = self.gradient(self.x, step)
            self.update.step(self.x, gradient, self.rate(step), step)
            self.losses += losses / len(steps)
        self.before_exchange = self.x
        self.exchange(t)

    @abstractmethod
    def exchange(self, t: int) -> None:
        """Moves the workers after the local steps of round t: makes a new x."""

    def averaged(self) -> Tensor:
        """x_A, [J], by one exchange of what the workers have moved."""
        comm = self.context.comm
        moved = comm.begin(self.context.compressor, self.weights, self.x.shape[1]).finish(self.x - self.pulled)
        return self.pulled_average + moved

    def go_on_from(self, x: Tensor) -> None:
        """Every worker goes on from x, [J]."""
        self.pulled_average = x
        self.pulled = x.expand(len(self.x), -1)
        self.x = self.pulled.clone()

    def centre_of_workers(self) -> Tensor:
        """x_A of the last exchange, [J]. All processes call it together."""
        return self.average

    def model(self) -> Tensor:
        return self.centre_of_workers()

    def worker_models(self) -> Tensor | None:
        return None if self.before_exchange is None else self.context.comm.watched(self.before_exchange)

    def diagnostics(self) -> dict[str, float]:
        before, centre = self.x if self.before_exchange is None else self.before_exchange, self.centre_of_workers()
        radii = [row_norms(x - centre).double() for x in (before, self.x)]
        before, after = self.context.comm.watched(torch.stack(radii, dim=1)).unbind(1)
        return {"consensus": float(before.square().sum()), "valley_width": float(after.mean())}

    def state_dict(self) -> dict[str, Tensor]:
        rows = {"x": self.x, "pulled": self.pulled.clone()}  # a file holds no two tensors in the same memory
        return {
            "average": self.average,
            "pulled_average": self.pulled_average.clone(),
            **with_prefix("workers", rows),
            **with_prefix("workers.optimizer", self.update.state_dict()),
            **with_prefix("compressor", self.context.compressor.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.x, self.pulled = state["workers.x"], state["workers.pulled"]
        self.average, self.pulled_average = state["average"], state["pulled_average"]
        self.update.load_state_dict(under_prefix("workers.optimizer", state))
        self.context.compressor.load_state_dict(under_prefix("compressor", state))
