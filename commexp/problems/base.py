"""The problem: minimise F(x) + h(x), where F = (1/N) sum_n f_n, f_n is the loss on worker n's data, and h has a prox.

Workers have equal weights in F for all models, so a sample of a small shard weighs more than one of a large shard.
Methods that weight workers by their samples (algo.shares=samples) minimise F = sum_n (m_n/m) f_n instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from commexp.problems.prox import NoProx, Prox
from commexp.problems.smoothness import Smoothness

NONZERO = 1e-6  # an entry of larger magnitude counts as nonzero
WAYS = ("auto", "fold", "vmap", "loop")


@dataclass(frozen=True)
class GradientOptions:
    """How gradients are computed. ``workers``: the way to compute those of several workers, one of WAYS. ``amp``: with
    torch.autocast in bfloat16. ``channels_last``: in channels-last memory format. ``compile``: with torch.compile.
    ``accumulate``: a batch's gradient is computed over so many pieces of the batch, one after the other, which saves
    memory. ``part``: (d, D): of D parts of the batch, only the share of the d-th is computed; the shares of all parts
    add up to the loss and the gradient."""

    workers: str = "auto"
    amp: bool = False
    channels_last: bool = False
    compile: bool = False
    accumulate: int = 1
    part: tuple[int, int] = (0, 1)


@dataclass
class ProblemContext:
    """What a problem depends on besides data and model. ``shards``: the sample indices of each of all N workers.
    ``worker_ids``: the workers of this process. ``batch_size``: None means full batches. ``deterministic``: whether to
    compute gradients worker by worker. ``weights``: of each worker in F; None means 1/N."""

    shards: Sequence[Tensor]
    worker_ids: Sequence[int]
    batch_size: int | None
    seed: int
    device: torch.device
    dtype: torch.dtype
    deterministic: bool = False
    speed: GradientOptions = field(default_factory=GradientOptions)
    weights: Sequence[float] | None = None
    loss: Callable[..., Tensor] | None = None
    metrics: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def own(self) -> list[Tensor]:
        """The sample indices of the workers of this process."""
        return [self.shards[n] for n in self.worker_ids]

    def shares(self, samples: int) -> Tensor:
        """The weight in F of each of ``samples`` samples, [samples]: the weight of its worker divided by the size of
        that worker's shard."""
        shares = torch.zeros(samples, dtype=self.dtype, device=self.device)
        for n, rows in enumerate(self.shards):
            own = 1 / (len(self.shards) * len(rows)) if self.weights is None else self.weights[n] / len(rows)
            shares[rows] = own
        return shares

    def sample(self, samples: int, at_most: int | None = None) -> tuple[Tensor, Tensor | None]:
        """A fixed selection of samples on which F is evaluated, and their weights in F, [k] each; the weights are None
        if they are all equal. Selects all ``samples`` in order, or ``at_most`` of them, evenly spread: over all samples
        if their weights are equal, otherwise equally many of each worker, at least one."""
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


FEW = 2**14  # entries of a worker's data that are copied rather than used one worker after the other


def rows_of(data: Tensor, rows: Sequence[int]) -> Tensor | list[Tensor]:
    """These rows of ``data`` [W, ...]: one in the same memory, several that are small as a tensor of their own; else,
    so that nothing is copied, each in the same memory, as a list."""
    if len(rows) == 1:
        return data[rows[0] : rows[0] + 1]
    return data[list(rows)] if data[0].numel() <= FEW else [data[row] for row in rows]


def spread(count: int, at_most: int) -> Tensor:
    """``at_most`` evenly spread indices below ``count``, including the first and the last."""
    return torch.linspace(0, count - 1, at_most, dtype=torch.float64).long()


#: called with the gradient [J] and the index from which on its entries are final
Ready = Callable[[Tensor, int], None]


class Problem(ABC):
    """Data, model and loss of the W workers of this process.

    ``dim``: J, the number of parameters. ``samples``: training samples of all workers together. ``samples_per_step``:
    the size of a worker's batch, on average over the workers. ``local_sizes``: the number of samples of each of the W
    workers. ``shapes``: names and shapes, in order, of the tensors that make up x. ``prox``: the convex term h.
    ``penalised``: whether F contains more than the loss on the samples, such as an l2 term. ``way``: how the gradients
    of the W workers are computed if there is a choice, see gradients.py. ``tokens_per_sample``: of language models.
    ``tells_gradient``: whether runs of all methods record the norm of the gradient of F, which is cheap here.
    ``whole_batches``: whether a batch is all that a worker has. ``has_accuracy``: whether ``evaluate`` gives a test
    accuracy. ``divisible``: whether it heeds GradientOptions.part.
    """

    prox: Prox = NoProx()
    penalised = False
    way = ""
    tokens_per_sample: int | None = None
    tells_gradient = False
    has_accuracy = False
    divisible = False
    whole_batches = False
    dim: int
    samples: int
    samples_per_step: float
    local_sizes: Sequence[int]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def gradient_flops(self) -> float:
        """Floating-point operations of one worker's gradient of one batch, on average over workers and batches: two for
        each multiplication and addition in its products; entry-wise work is left out. Modules: experiment/flops.py.
        Raises ValueError where nobody knows it."""
        raise ValueError(f"nobody has said how many operations a gradient of {type(self).__name__} takes")

    def smoothness(self) -> Smoothness:
        """Of the functions that gradients over all samples belong to. Raises ValueError where nobody knows it."""
        raise ValueError("the smoothness of this model's loss is not known")

    def for_workers(self, rows: Sequence[int]) -> Problem:
        """The same problem for these local workers only, W = len(rows): one or more of 0, ..., W - 1, ascending. It
        shares the data of all workers with this problem, and also the buffer of the gradient: the next gradient of
        either may overwrite it. Raises ValueError if the problem does not support this."""
        raise ValueError(
            f"model: {type(self).__name__} is for workers that take part in every round and wait for each other; give "
            "algo=sgd, ..."
        )

    @abstractmethod
    def init(self, generator: torch.Generator) -> Tensor:
        """The starting point x_0, [J]; a function of the generator's seed."""

    @abstractmethod
    def batch(self, step: int) -> object:
        """The workers' batches of local step ``step``; a function of the seed and the step only."""

    @abstractmethod
    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        """x [W, J] -> losses [W] and gradients [W, J] on the batch. ``x`` may be an expanded [J].

        The next call may overwrite the gradients, and so may the caller. With a single worker, ``ready`` may be called
        during the backward pass, as entries become final from the end of the vector backwards.
        """

    @abstractmethod
    def fresh(self, step: int, size: int) -> object:
        """Batches of ``size`` samples of each worker, drawn with replacement and independently of ``batch``; a function
        of the seed and the step only. Full batches if the problem has no others."""

    def fresh_samples(self, size: int) -> float:
        """How many samples of each worker ``fresh`` draws."""
        return float(size)

    @abstractmethod
    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [W, J] -> losses [W] and gradients [W, J] of f_n at x_n, over all of worker n's samples."""

    @abstractmethod
    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """x [W, J] -> losses [W] and gradients [W, J] of every x_n on one common batch, drawn from the samples of all
        workers; a function of the seed and the step only."""

    def common_samples(self) -> float:
        """The size of the common batch."""
        return self.samples_per_step

    @abstractmethod
    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """x [J] -> F(x) and its gradient [J]; on a fixed subset of large datasets."""

    def training_loss(self, x: Tensor) -> float:
        """F(x) of ``training_gradient``, without the gradient."""
        return self.training_gradient(x)[0]

    def stationarity(self, x: Tensor) -> float:
        """||x - prox_h(x - grad F(x))||^2 at x [J], with h = ``prox``, which is zero exactly at stationary points of
        F + h; without an h it is the squared gradient norm ||grad F(x)||^2. The gradient is that of
        ``training_gradient``."""
        _, gradient = self.training_gradient(x)
        moved = x - self.prox.prox((x - gradient)[None], 1.0)[0]
        return float(moved.double().square().sum())

    def composite(self, x: Tensor) -> dict[str, float]:
        """Metrics of the composite problem min F + h at x [J]: ``stationarity``; and, if there is an h, ``nonzero``,
        the share of entries above 1e-6 in magnitude."""
        metrics = {"stationarity": self.stationarity(x)}
        if not isinstance(self.prox, NoProx):
            metrics["nonzero"] = float((x.abs() > NONZERO).double().mean())
        return metrics

    def objective(self, loss: float, x: Tensor) -> dict[str, float]:
        """``objective``, F(x) + h(x), where F(x) is ``loss``; empty if that equals ``train_loss``, because there is
        neither a penalty nor an h."""
        plain = isinstance(self.prox, NoProx) and not self.penalised
        return {} if plain else {"objective": loss + self.prox.value(x)}

    def classes_per_worker(self) -> Tensor | None:
        """How many samples of each class each of the N workers has, [N, classes]; None if there are no classes."""
        return None

    @abstractmethod
    def evaluate(self, x: Tensor) -> dict[str, float]:
        """Metrics of one model, x [J]: ``train_loss``, which is F without penalties, and, if defined for the problem,
        ``train_accuracy`` with the same weights, ``objective``, ``test_loss``, ``test_accuracy``, ``train_rmse``,
        ``test_rmse``, ``excess_loss``, ``dist_to_opt``."""

    def optimum(self) -> Tensor | None:
        """The minimiser [J] if it is known in closed form, otherwise None."""
        return None
