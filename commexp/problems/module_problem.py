"""Any torch module as a problem: a task's loss on the workers' data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from commexp.problems.base import Problem, ProblemContext, Ready
from commexp.problems.data import Data
from commexp.problems.feeds import make_feed
from commexp.problems.gradients import Batch, CannotFoldError, ModuleGradients, Scored
from commexp.problems.items import Items
from commexp.problems.tasks import (
    Classification,
    LanguageModelling,
    OwnLoss,
    Regression,
    Task,
    TaskError,
    WithMetrics,
)
from commexp.problems.tokens import Tokens
from commexp.problems.trees import Tree, count_samples, tensors, tree_map
from commexp.seeding import derive, global_draws

EVALUATION_SAMPLES = 8192  # the largest number of images on which the training loss is evaluated
STATISTICS_SAMPLES = 2048  # images for batch norm statistics, and for the loss in diagnostics
EVALUATION_TOKENS, DIAGNOSTIC_TOKENS = 2**16, 2**14  # the same for language models

Rows = tuple[Tensor, "Tensor | None"]  # sample indices and their weights in F, None if these are equal


class ModuleProblem(Problem):
    """f_n(x) = mean loss of the task over worker n's samples, with a module whose trained parameters are x.

    ``make`` returns a newly initialised module. ``trial``: whether the module is not known to take the data's batches,
    and is tried on one. The task is ``context.loss`` where there is one, else the data's, see ``task_of``.

    In training, batch norm uses the statistics of the batch and keeps no running statistics: they are not part of x,
    and methods need not handle them. Every evaluation estimates them from training data. Other buffers are constants.
    What the module draws at random, dropout, comes from a generator of the worker and the step. Metrics: those of the
    task; of the training set over all samples, or a fixed subset of 8,192 images or 65,536 tokens, with their weights
    in F; of the test set over all of it; objective if there is a proximal term. Raises ValueError for data without a
    test set, for full batches, for a way of computing gradients that the module does not support, and for a module
    without trained parameters, that cannot take a batch, or whose buffers change.
    """

    divisible = True

    def __init__(self, make: Callable[[], nn.Module], data: Data, context: ProblemContext, trial: bool = False) -> None:
        if data.test_x is None:
            raise ValueError("dataset: has no test set, by which models are judged; give one")
        if context.batch_size is None:
            raise ValueError("batch_size=null: this model trains on mini-batches; give a number such as 16")
        self.make, self.device, self.dtype, self.seed = make, context.device, context.dtype, context.seed
        self._start_seed = derive(context.seed, "start")
        self.module = self._made(self._start_seed)
        self.norms = [m for m in self.module.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
        self._train()
        self.task = task_of(self.module, data, context)
        self.has_accuracy = self.task.has_accuracy
        self.tells_gradient = data.vectors or is_linear(self.module)
        self.feed = make_feed(data, context)
        self.samples, self.samples_per_step = len(data.train_x), context.batch_size
        self.local_sizes = [len(rows) for rows in context.own]
        self.worker_ids = context.worker_ids
        self.counts = data.class_counts(context.shards)
        most, few = None, None
        if isinstance(data.train_x, Tokens):
            self.tokens_per_sample = block = data.train_x.block
            most, few = max(1, EVALUATION_TOKENS // block), max(1, DIAGNOSTIC_TOKENS // block)
        elif data.image_shape is not None or isinstance(data.train_x, Items):  # feature vectors are cheap
            most, few = EVALUATION_SAMPLES, STATISTICS_SAMPLES
        self.evaluation_samples: Rows = context.sample(self.samples, most)
        self.diagnostic_samples: Rows = context.sample(self.samples, few)
        example = self.feed.example()
        random = self._tried(example, context) if trial else draws(self.module)
        self.gradients = ModuleGradients(self.module, self.task, context.deterministic, context.speed, random)
        self.layout = self.gradients.layout
        self.dim, self.shapes = self.layout.dim, self.layout.shapes
        if not self.dim:
            raise ValueError("model: the module has no parameter that requires a gradient; give it some")
        self._scores = Scored(self.module, self.task.scores)
        try:
            self.way = self.gradients.choose(len(context.worker_ids), example)
        except (CannotFoldError, RuntimeError) as error:
            way, reason = context.speed.workers, str(error).splitlines()[0]
            raise ValueError(f"speed.workers={way}: this model cannot be ({reason}); give auto or loop") from error

    def _made(self, seed: int) -> nn.Module:
        """A module that draws its initial values from the stream of ``seed``."""
        with global_draws(seed, self.device):
            return self.make().to(self.device, self.dtype)

    def _train(self) -> None:
        self.module.train()
        for norm in self.norms:
            norm.track_running_stats = False

    def _tried(self, example: Tree, context: ProblemContext) -> bool:
        """Whether the module draws random numbers. Raises ValueError for what it cannot do."""
        if not any(p.requires_grad for p in self.module.parameters()):
            raise ValueError("model: the module has no parameter that requires a gradient; give it some")
        kept = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        trial = ModuleGradients(copy.deepcopy(self.module), self.task, speed=context.speed)
        x = torch.cat([p.detach().flatten() for p in trial.parameters])
        with global_draws(self._start_seed, self.device):
            before = torch.get_rng_state(), device_state(self.device)
            try:
                trial.one(x, tree_map(lambda t: t.contiguous(), example), torch.zeros_like(x))
                after = torch.get_rng_state(), device_state(self.device)
                with torch.no_grad():
                    self.task.scores(trial.module.eval(), example)
            except TaskError:
                raise
            except Exception as error:
                raise ValueError(
                    f"model: a step of training fails on a batch of {described(example)} ({type(error).__name__}: "
                    f"{' '.join(str(error).split())[:200]}); give a module, a loss and data that fit together"
                ) from error
        changed = {n for n, b in trial.module.named_buffers() if not torch.equal(b, kept[n])}
        if changed:
            raise ValueError(
                f"model: its buffer {min(changed)} changes in training, and only batch norm's statistics may, which "
                "commexp estimates anew; give a module that keeps no other state"
            )
        return not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    def for_workers(self, rows: Sequence[int]) -> ModuleProblem:
        some = copy.copy(self)
        some.feed, some.worker_ids = self.feed.for_workers(rows), [self.worker_ids[row] for row in rows]
        some.local_sizes = [self.local_sizes[row] for row in rows]
        return some

    def init(self, generator: torch.Generator) -> Tensor:
        """The module's own initialisation, drawn from ``generator`` instead of the global one."""
        unchanged = self.gradients.bound is None and generator.initial_seed() == self._start_seed
        module = self.module if unchanged else self._made(generator.initial_seed())
        values = dict(module.named_parameters())
        return torch.cat([values[name].detach().flatten() for name in self.layout.shapes])

    # -- gradients

    def batch(self, step: int) -> Batch:
        return Batch(self.feed.batch(step), self._seeds("dropout", step))

    def fresh(self, step: int, size: int) -> Batch:
        return Batch(self.feed.fresh(step, size), self._seeds("fresh dropout", step))

    def _seeds(self, purpose: str, step: int) -> tuple[int, ...]:
        """Of what each worker draws in its forward pass; none if the module draws nothing."""
        if not self.gradients.random:
            return ()
        return tuple(derive(self.seed, purpose, n, step) for n in self.worker_ids)

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        assert isinstance(batch, Batch)
        return self.gradients(x, batch, ready)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        tree = tree_map(lambda t: t.expand(len(x), *t.shape), self.feed.common(step))
        seeds = (derive(self.seed, "common dropout", step),) * len(x) if self.gradients.random else ()
        return self.gradients(x, Batch(tree, seeds))

    def local_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Batch norm uses the statistics of each chunk."""
        per_worker = []
        for w, row in enumerate(x):
            rows = self.feed.context.own[w]
            share = torch.full((len(rows),), 1 / len(rows), dtype=self.dtype, device=self.device)
            per_worker.append(self._weighted_loss_and_grad(row, weighted(self.feed.own(w), share)))
        return torch.stack([loss for loss, _ in per_worker]), torch.stack([grad for _, grad in per_worker])

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """Batch norm uses the statistics of each chunk."""
        loss, grad = self._weighted_loss_and_grad(x, self._weighted(self.diagnostic_samples))
        return float(loss), grad

    def _weighted_loss_and_grad(self, x: Tensor, chunks: Iterable[Weighted]) -> tuple[Tensor, Tensor]:
        """sum_i w_i loss_i over the samples of all chunks and their weights w at x [J], and its gradient [J]."""
        x = x.detach().contiguous()
        loss, grad = x.new_zeros(()), torch.zeros_like(x)
        seed = derive(self.seed, "dropout of diagnostics") if self.gradients.random else None
        for chunk in chunks:
            loss = loss + self.gradients.one(x, chunk.tree, grad, seed=seed, weights=chunk.weights)
        return loss, grad

    def _weighted(self, samples: Rows) -> Iterator[Weighted]:
        """Chunks of samples and their weights. Of a task whose loss is a scalar, the weights in a chunk are equal."""
        rows, weights = samples
        if weights is None:
            weights = torch.full((len(rows),), 1 / len(rows), dtype=self.dtype, device=self.device)
        elif not self.task.foldable:
            for weight in torch.unique(weights):
                here = weights == weight
                yield from weighted(self.feed.chosen(rows[here.cpu()]), weights[here])
            return
        yield from weighted(self.feed.chosen(rows), weights)

    # -- metrics

    def training_loss(self, x: Tensor) -> float:
        with global_draws(derive(self.seed, "dropout of diagnostics"), self.device):
            return self._mean_scores(x, self._weighted(self.diagnostic_samples))["loss"]

    def classes_per_worker(self) -> Tensor | None:
        return self.counts

    def evaluate(self, x: Tensor) -> dict[str, float]:
        self._estimate_norm_statistics(x)
        self.module.eval()
        rows, weights = self.evaluation_samples
        alike = weights is None
        train = self._mean_scores(x, self.feed.chosen(rows) if alike else self._weighted(self.evaluation_samples))
        test = self._mean_scores(x, self.feed.test())
        self._train()
        columns = self.task.evaluated(train, test)
        return {"train_loss": columns.pop("train_loss"), **self.objective(train["loss"], x), **columns}

    @torch.no_grad()
    def _estimate_norm_statistics(self, x: Tensor) -> None:
        """Estimates the batch norm statistics of the model x as averages over chunks of training data."""
        if not self.norms:
            return
        self.module.eval()
        for norm in self.norms:
            norm.train()
            norm.track_running_stats, norm.momentum = True, None  # None: a plain average over the chunks
            norm.reset_running_stats()
        params = self.layout.views(x)
        for tree in self.feed.train(STATISTICS_SAMPLES):
            self._scores.at(params, tree)

    @torch.no_grad()
    def _mean_scores(self, x: Tensor, chunks: Iterable[Tree | Weighted]) -> dict[str, float]:
        """Means over the samples of the chunks, or, for chunks with weights, sums with these."""
        params, count, totals = self.layout.views(x), 0, dict[str, float]()
        for chunk in chunks:
            tree, weights = (chunk.tree, chunk.weights) if isinstance(chunk, Weighted) else (chunk, None)
            size = count_samples(tree)
            for name, value in self._scores.at(params, tree).items():
                if weights is None:
                    total = float(value.double().sum()) if value.ndim else float(value) * size
                else:
                    total = float(value @ weights if value.ndim else value * weights.sum())
                totals[name] = totals.get(name, 0.0) + total
            count += size if weights is None else 0
        return {name: total / count for name, total in totals.items()} if count else totals


@dataclass
class Weighted:
    """A chunk of samples, and the weight in F of each, [b]."""

    tree: Tree
    weights: Tensor


def weighted(chunks: Iterable[Tree], weights: Tensor) -> Iterator[Weighted]:
    """The chunks, each with the ``weights`` [m] of its samples."""
    done = 0
    for tree in chunks:
        size = count_samples(tree)
        yield Weighted(tree, weights[done : done + size])
        done += size


def task_of(module: nn.Module, data: Data, context: ProblemContext) -> Task:
    """The user's own loss, with their metrics; without one the module's method ``loss``, or what the data ask for:
    language modelling for tokens, classification for classes, squared error for real targets, and for any other batch
    the loss that the module returns."""
    task: Task
    if context.loss is not None or callable(getattr(module, "loss", None)):
        task = OwnLoss(context.loss)
    elif isinstance(data.train_x, Tokens):
        task = LanguageModelling(data.test_x.bytes_per_token)
    elif data.classes is not None:
        task = Classification()
    else:
        targets = data.train_x.targets if isinstance(data.train_x, Items) else data.train_y
        if targets is None:
            task = OwnLoss(None)
        elif targets.is_floating_point():
            task = Regression()
        else:
            task = LanguageModelling() if targets.ndim == 2 else Classification()
    return WithMetrics(task, context.metrics) if context.metrics else task


def is_linear(module: nn.Module) -> bool:
    """Whether a module made of torch's layers is one linear map, whose cross entropy and squared error are convex."""
    leaves = [m for m in module.modules() if not any(True for _ in m.children())]
    maps = [m for m in leaves if isinstance(m, nn.Linear)]
    return len(maps) == 1 and all(isinstance(m, nn.Linear | nn.Flatten | nn.Identity) for m in leaves)


def draws(module: nn.Module) -> bool:
    """Whether a module made of torch's layers draws random numbers in training."""
    return any(isinstance(m, _DropoutNd) and m.p > 0 for m in module.modules())


def described(tree: Tree) -> str:
    """The shapes and types of a batch's tensors, for error messages."""
    shapes = [f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in tensors(tree)]
    names = list(tree) if isinstance(tree, Mapping) else []
    return ", ".join(f"{name}: {s}" for name, s in zip(names, shapes, strict=True)) if names else ", ".join(shapes)


def device_state(device: torch.device) -> Tensor:
    """Of the GPU's generator; empty on a CPU."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0)
