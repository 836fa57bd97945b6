"""The base of methods that take several local steps between exchanges."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.gradient.base import GradientMethod, row_norms


@dataclass
class LocalMethod(GradientMethod):
    """Every round, every worker n = 1..N takes ``tau`` local steps of its own optimiser from x_n; then one exchange.

    Let s_n be the position of worker n after the pull of the last exchange, before any push, and s_A the average of the
    s_n, which all workers know. The workers send C(x_n - s_n), where C is the compressor with its error feedback:

        x_A = s_A + (1/N) sum_n C(x_n - s_n)

    Without compression x_A is the average of the x_n. With compression x_A differs from that average by e, where
    e <- (1 - pull) e + (what C left out of this round's average): the error does not accumulate as long as the workers
    are pulled towards x_A. Optimiser states are not exchanged.

    x_A, the average at the last exchange, before workers are pulled or pushed, is the model that is evaluated, unless
    the method names another one. Diagnostics relative to this x_A: ``consensus``, sum_n ||x_n - x_A||^2 for the x_n
    before the exchange; ``valley_width``, mean_n ||x_n - x_A|| for the x_n after it. Both are 0 before the first round.

    Memory of the size of all workers' models is used again: that of the last gradient for the differences, and that of
    the x_n before the exchange, which diagnostics need, for the x_n of the next round.
    """

    state = "average pulled_average compressor=context.compressor"
    worker_state = "x pulled optimizer=update"
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
        self.average = context.start  # x_A
        self.pulled = context.start.expand(workers, -1)  # s_n
        self.pulled_average = self.average  # s_A
        self.losses = self.x.new_zeros(workers)  # mean over the last round's local steps
        self.before_exchange: Tensor | None = None  # x_n before the last exchange, until the next round
        self.spent: Tensor | None = None  # the last gradient, whose memory may be used
        self.update = self.make_optimizer()
        self.weights = self.x.new_full((workers,), 1.0 / comm.size)

    def round(self, t: int) -> None:
        steps = range(self.ends[t], self.ends[t + 1])
        if self.x is self.pulled:
            memory, self.before_exchange = self.before_exchange, None
            self.x = self.pulled.clone() if memory is None else memory.copy_(self.pulled)
        self.losses = torch.zeros_like(self.losses)
        for step in steps:
            losses, self.spent = self.gradient(self.x, step)
            self.update.step(self.x, self.spent, self.rate(step), step)
            self.losses += losses / len(steps)
        self.before_exchange = self.x
        self.exchange(t)
        self.spent = None

    @abstractmethod
    def exchange(self, t: int) -> None:
        """Exchanges and moves the workers after the local steps of round t: sets a new x."""

    def averaged(self) -> Tensor:
        """x_A, [J], by one exchange of the differences x_n - s_n."""
        comm = self.context.comm
        memory, self.spent = self.spent, None
        difference = torch.sub(self.x, self.pulled, out=memory)
        moved = comm.begin(self.context.compressor, self.weights, self.x.shape[1]).finish(difference)
        return self.pulled_average + moved

    def go_on_from(self, x: Tensor) -> None:
        """Sets every worker to x, [J]; it is copied for each of them when the next round begins."""
        self.pulled_average = x
        self.x = self.pulled = x.expand(self.x.shape[0], -1)

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
