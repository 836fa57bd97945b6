"""Classification by a torch module, cross-entropy loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from commexp.problems.base import Problem, ProblemContext, Ready
from commexp.problems.data import Data
from commexp.problems.feeds import make_feed
from commexp.problems.folding import CannotFoldError
from commexp.problems.gradients import ModuleGradients

EVALUATION_SAMPLES = 8192  # the largest number of images on which the training loss is evaluated
STATISTICS_SAMPLES = 2048  # images for batch norm statistics, and for the loss in diagnostics

Chunks = Iterable[tuple[Tensor, Tensor]]


class Classification(Problem):
    """f_n(x) = mean cross entropy over worker n's samples. ``make`` returns a newly initialised module.

    In training, batch norm uses the statistics of the batch and keeps no running statistics: they are not part of x,
    and methods need not handle them. Every evaluation estimates them from training data. Metrics: train_loss = F and
    train_accuracy, with the same weights, over all samples, or for images over a fixed subset of 8,192; objective if
    there is a proximal term; test_loss and test_accuracy over the whole test set. Raises ValueError for data without a
    test set, for full batches, or for a way of computing gradients that the module does not support.
    """

    def __init__(self, make: Callable[[], nn.Module], data: Data, context: ProblemContext) -> None:
        if data.test_x is None or data.test_y is None:
            raise ValueError("dataset: has no test set; classification needs one")
        if context.batch_size is None:
            raise ValueError("batch_size=null: this model trains on mini-batches; give a number such as 16")
        self.make, self.device, self.dtype = make, context.device, context.dtype
        with torch.random.fork_rng(devices=[]):  # layers draw initial values here; ``init`` draws them again
            self.module = make().to(self.device, self.dtype)
        self.norms = [m for m in self.module.modules() if isinstance(m, _BatchNorm)]
        self._train()
        self.gradients = ModuleGradients(self.module, context.deterministic, context.speed)
        self.layout = self.gradients.layout
        self.dim, self.shapes = self.layout.dim, self.layout.shapes
        self.samples = len(data.train_x)
        self.samples_per_step = context.batch_size
        self.feed = make_feed(data, context)
        images = data.image_shape is not None  # feature vectors are cheap, so all are evaluated
        self.evaluation_samples = context.sample(self.samples, EVALUATION_SAMPLES if images else None)
        self.diagnostic_samples = context.sample(self.samples, STATISTICS_SAMPLES if images else None)
        self.local_sizes = [len(rows) for rows in context.own]
        classes = data.classes or int(data.train_y.max()) + 1
        self.counts = torch.stack([torch.bincount(data.train_y[rows], minlength=classes) for rows in context.shards])
        try:
            self.way = self.gradients.choose(len(context.worker_ids), data.train_x.shape[1:])
        except (CannotFoldError, RuntimeError) as error:
            way, reason = context.speed.workers, str(error).splitlines()[0]
            raise ValueError(f"speed.workers={way}: this model cannot be ({reason}); give auto or loop") from error

    def _train(self) -> None:
        self.module.train()
        for norm in self.norms:
            norm.track_running_stats = False

    def for_worker(self, w: int) -> Classification:
        one = copy.copy(self)
        one.feed = self.feed.for_worker(w)
        return one

    def init(self, generator: torch.Generator) -> Tensor:
        """The module's own initialisation, drawn from ``generator`` instead of the global one."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator.initial_seed())  # torch.manual_seed also seeds all GPUs
            fresh = self.make()
        return nn.utils.parameters_to_vector(p for p in fresh.parameters()).detach().to(self.device, self.dtype)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self.feed.batch(step)

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        assert isinstance(batch, tuple)
        inputs, targets = batch
        return self.gradients(x, inputs, targets, ready)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self.feed.common(step)
        return self.gradients(x, inputs.expand(len(x), *inputs.shape), targets.expand(len(x), -1))

    def fresh(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        return self.feed.fresh(step, size)

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Batch norm uses the statistics of each chunk."""
        per_worker = []
        for w, row in enumerate(x):
            rows = self.feed.context.own[w]
            share = torch.full((len(rows),), 1 / len(rows), dtype=self.dtype, device=self.device)
            per_worker.append(self._weighted_loss_and_grad(row, self.feed.own(w), share))
        return torch.stack([loss for loss, _ in per_worker]), torch.stack([grad for _, grad in per_worker])

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Batch norm uses the statistics of each chunk."""
        rows, shares = self.diagnostic_samples
        shares = x.new_full((len(rows),), 1 / len(rows)) if shares is None else shares
        loss, grad = self._weighted_loss_and_grad(x, self.feed.chosen(rows), shares)
        return float(loss), grad

    @torch.enable_grad()
    def _weighted_loss_and_grad(self, x: Tensor, chunks: Chunks, shares: Tensor) -> tuple[Tensor, Tensor]:
        """sum_i shares_i loss_i over the samples of all chunks at x [J], and its gradient [J]."""
        params = {name: p.requires_grad_() for name, p in self.layout.views(x.detach().clone()).items()}
        done, loss, grad = 0, x.new_zeros(()), torch.zeros_like(x)
        for inputs, targets in chunks:
            share = shares[done : done + len(targets)]
            losses = F.cross_entropy(functional_call(self.module, params, (inputs,)), targets, reduction="none")
            value = losses @ share
            grads = torch.autograd.grad(value, list(params.values()))
            grad += torch.cat([g.flatten() for g in grads])
            done, loss = done + len(targets), loss + value.detach()
        return loss, grad

    def training_loss(self, x: Tensor) -> float:
        rows, shares = self.diagnostic_samples
        return self._score(x, self.feed.chosen(rows), shares)[0]

    def classes_per_worker(self) -> Tensor:
        return self.counts

    def evaluate(self, x: Tensor) -> dict[str, float]:
        self._estimate_norm_statistics(x)
        self.module.eval()
        rows, shares = self.evaluation_samples
        train_loss, train_accuracy = self._score(x, self.feed.chosen(rows), shares)
        test_loss, test_accuracy = self._score(x, self.feed.test())
        self._train()
        return {
            "train_loss": train_loss,
            **self.objective(train_loss, x),
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }

    @torch.no_grad()
    def _estimate_norm_statistics(self, x: Tensor) -> None:
        """Estimates the batch norm statistics of the model x as averages over chunks of training data."""
        for norm in self.norms:
            norm.track_running_stats, norm.momentum = True, None  # None: a plain average over the chunks
            norm.reset_running_stats()
        params = self.layout.views(x)
        for inputs, _ in self.feed.train(STATISTICS_SAMPLES) if self.norms else ():
            functional_call(self.module, params, (inputs,))

    @torch.no_grad()
    def _score(self, x: Tensor, chunks: Chunks, shares: Tensor | None = None) -> tuple[float, float]:
        """Loss and accuracy: means over the samples, or sums with the weights ``shares`` [k]."""
        params, count, loss, right = self.layout.views(x), 0, 0.0, 0.0
        for inputs, targets in chunks:
            logits = functional_call(self.module, params, (inputs,))
            correct = logits.argmax(1) == targets
            if shares is None:
                loss += float(F.cross_entropy(logits, targets, reduction="sum"))
                right += int(correct.sum())
            else:
                share = shares[count : count + len(targets)]
                loss += float(F.cross_entropy(logits, targets, reduction="none") @ share)
                right += float(correct.to(share) @ share)
            count += len(targets)
        return (loss / count, right / count) if shares is None else (loss, right)
