"""What is minimised: F(x) + h(x), F = (1/N) sum_n f_n, f_n the loss on worker n's data, h with a prox.

F is the same for all models and whatever the shards' sizes: a sample of a small shard weighs more than one of a large
shard. Methods that weigh workers by their samples (algo.shares=samples) minimise sum_n (m_n/m) f_n, and then that is F.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from commexp.problems.prox import NoProx, Prox

NONZERO = 1e-6  # an entry beyond it counts as not zero
WAYS = ("auto", "fold", "vmap", "loop")


@dataclass(frozen=True)
class GradientOptions:
    """How gradients are computed. ``workers``: of several workers at once: one of WAYS. ``amp``: in bfloat16 where
    torch's autocast does so. ``channels_last``: images with the channels innermost. ``compile``: by torch.compile."""

    workers: str = "auto"
    amp: bool = False
    channels_last: bool = False
    compile: bool = False


@dataclass
class ProblemContext:
    """What a problem needs to know besides data and model. ``shards``: the samples of each of all N workers.
    ``worker_ids``: those of this process. ``batch_size``: None means the full batch. ``deterministic``: gradients
    worker by worker. ``weights``: of each worker in F; 1/N each if None."""

    shards: Sequence[Tensor]
    worker_ids: Sequence[int]
    batch_size: int | None
    seed: int
    device: torch.device
    dtype: torch.dtype
    deterministic: bool = False
    speed: GradientOptions = field(default_factory=GradientOptions)
    weights: Sequence[float] | None = None

    @property
    def own(self) -> list[Tensor]:
        """The samples of this process's workers."""
        return [self.shards[n] for n in self.worker_ids]

    def shares(self, samples: int) -> Tensor:
        """The weight in F of each of so many samples, [samples]: 1 / (N samples of its worker) unless there are
        ``weights``."""
        shares = torch.zeros(samples, dtype=self.dtype, device=self.device)
        for n, rows in enumerate(self.shards):
            own = 1 / (len(self.shards) * len(rows)) if self.weights is None else self.weights[n] / len(rows)
            shares[rows] = own
        return shares

    def sample(self, samples: int, at_most: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Samples over which F is taken, always the same, and their weights in it, [k] each; None where they weigh the
        same. All ``samples`` in order, or ``at_most`` of them, evenly spread: over all where all weigh the same, else
        as many of each worker's, one at least."""
        shares = self.shares(samples)
        alike, few = bool((shares == shares[0]).all()), at_most is not None and at_most < samples
        if not few:
            return torch.arange(samples), None if alike else shares
        assert at_most is not None
        if alike:
            return spread(samples, at_most), None
        chosen = [rows[spread(len(rows), min(len(rows), max(1, at_most // len(self.shards))))] for rows in self.shards]
        weights = [shares[few] * (len(rows) / len(few)) for rows, few in zip(self.shards, chosen, strict=True)]
        return torch.cat(chosen), torch.cat(weights)


def spread(count: int, at_most: int) -> Tensor:
    """``at_most`` of the places below ``count``, the first and the last among them."""
    return torch.linspace(0, count - 1, at_most, dtype=torch.float64).long()


#: called with the gradient [J] and the place from which on its entries are final
Ready = Callable[[Tensor, int], None]


class Problem(ABC):
    """Data, model and loss of the W workers of this process.

    ``dim``: J, the number of parameters. ``samples``: training samples over all workers.
    ``samples_per_step``: samples that one worker's batch holds, on average over the workers. ``local_sizes``: samples
    of each of the W workers here.
    ``shapes``: names and shapes, in order, of the tensors that make up x. ``prox``: the convex term h beside F.
    ``penalised``: whether F holds more than the loss on the samples, such as an l2 term. ``way``: how the gradients of
    the workers here are computed where there is a choice, see gradients.py.
    """

    prox: Prox = NoProx()
    penalised = False
    way = ""
    dim: int
    samples: int
    samples_per_step: float
    local_sizes: Sequence[int]
    shapes: Mapping[str, tuple[int, ...]]

    def for_worker(self, w: int) -> Problem:
        """The same problem for the ``w``-th worker here alone, W = 1. The two share what concerns all workers: memory
        grows with what a worker holds. A gradient may be overwritten by the next one of either. Raises ValueError
        where the problem does not know."""
        raise ValueError(f"model: {type(self).__name__} is for workers that wait for each other; give algo=sgd, ...")

    @abstractmethod
    def init(self, generator: torch.Generator) -> Tensor:
        """The start x_0, [J]; equal for equal generators."""

    @abstractmethod
    def batch(self, step: int) -> object:
        """The workers' batches of local step ``step``; a function of the seed and the step alone."""

    @abstractmethod
    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        """x [W, J] -> losses [W] and gradients [W, J] on the batch. ``x`` may be an expanded [J].

        The gradients may be overwritten by the next call. ``ready`` may be called while a single worker's gradient is
        being computed, from its end backwards.
        """

    @abstractmethod
    def fresh(self, step: int, size: int) -> object:
        """Batches of ``size`` samples of each worker, drawn with replacement, apart from those of ``batch``; a
        function of the seed and the step alone. The full batch where there are no other batches."""

    def fresh_samples(self, size: int) -> float:
        """How many samples of each worker ``fresh`` gives."""
        return float(size)

    @abstractmethod
    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [W, J] -> losses [W] and gradients [W, J] of f_n at x_n, over all of worker n's samples."""

    @abstractmethod
    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """x [W, J] -> losses [W] and gradients [W, J], of every x_n on one and the same batch of all workers'
        samples; a function of the seed and the step alone."""

    def common_samples(self) -> float:
        """How many samples that batch holds."""
        return self.samples_per_step

    @abstractmethod
    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """x [J] -> F(x), on a fixed sample where there is much data, and its gradient [J]."""

    def training_loss(self, x: Tensor) -> float:
        """The same F(x) alone."""
        return self.training_gradient(x)[0]

    def composite(self, x: Tensor) -> dict[str, float]:
        """Of the composite problem min F + h at x [J], h = ``prox``: ``stationarity``
        ||x - prox_h(x - grad F(x))||^2, zero at a stationary point and nowhere else; where there is an h, ``nonzero``,
        the share of entries beyond 1e-6. The gradient of F as by ``training_gradient``."""
        _, gradient = self.training_gradient(x)
        moved = x - self.prox.prox((x - gradient)[None], 1.0)[0]
        metrics = {"stationarity": float(moved.double().square().sum())}
        if not isinstance(self.prox, NoProx):
            metrics["nonzero"] = float((x.abs() > NONZERO).double().mean())
        return metrics

    def objective(self, loss: float, x: Tensor) -> dict[str, float]:
        """``objective``, the whole of what is minimised, F(x) + h(x), where F(x) is ``loss``; nothing where that is the
        loss on the samples alone, which ``train_loss`` says."""
        plain = isinstance(self.prox, NoProx) and not self.penalised
        return {} if plain else {"objective": loss + self.prox.value(x)}

    def classes_per_worker(self) -> Tensor | None:
        """How many samples of each class each of all N workers has, [N, classes]; None where there are no classes."""
        return None

    @abstractmethod
    def evaluate(self, x: Tensor) -> dict[str, float]:
        """Metrics of one model, x [J]: ``train_loss``, F without penalties, and, where there is such a thing,
        ``train_accuracy`` with the same weights, ``objective``, ``test_loss``, ``test_accuracy``, ``train_rmse``,
        ``test_rmse``, ``excess_loss``, ``dist_to_opt``."""

    def optimum(self) -> Tensor | None:
        """The minimiser [J] where it is known in closed form."""
        return None
