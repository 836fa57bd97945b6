"""Losses and gradients of W workers for any torch module and any task, in one of four ways.

one        W = 1: plain autograd; parameters and gradients are views of flat buffers, nothing is copied
fold       the workers in the sample axis or the channel axis of one batch, see folding.py
vmap       torch.func.vmap over workers: for operations with a batching rule and without running statistics
loop       worker by worker: always possible, with the same bits as W = 1

The ways sum in different orders, so their results differ in the last digits. ``auto`` therefore depends only on the
model, the task and W, not on speed measurements: a model of at most 2^20 parameters uses the first of fold, vmap and
loop that its layers support, a larger one loop. A small model spends its time on calls, of which fold and vmap make W
times fewer; a large one on arithmetic, to which they add copies. A module that draws random numbers, as dropout does,
is called worker by worker, each with its own generator. scripts/bench_ways.py compares the ways.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from commexp.problems.base import GradientOptions, Ready
from commexp.problems.folding import CannotFoldError, ChannelFold, Fold, SampleFold, from_channels, to_channels
from commexp.problems.tasks import Task, TaskError
from commexp.problems.trees import Tree, tensors, tree_map
from commexp.seeding import derive, global_draws


class FlatLayout:
    """The position of each trained parameter of a module in the flat vector x of length J = ``dim``. Parameters that
    need no gradient have no part in x; one that several layers share has one."""

    def __init__(self, module: nn.Module) -> None:
        self.shapes = {name: p.shape for name, p in module.named_parameters() if p.requires_grad}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.dim = sum(self.sizes)

    def views(self, x: Tensor) -> dict[str, Tensor]:
        """x [..., J] -> parameters [..., *shape] that share its memory."""
        pieces = torch.split(x, self.sizes, dim=-1)
        return {
            name: piece.view(*x.shape[:-1], *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


@dataclass
class Batch:
    """``tree``: the workers' samples, [W, b, ...] each. ``seeds``: of what each worker draws in its forward pass, if it
    draws anything."""

    tree: Tree
    seeds: Sequence[int] = ()


class Scored(nn.Module):
    """A module together with ``score``, called with the module and a batch, so that functional_call reaches both."""

    def __init__(self, module: nn.Module, score: Callable[[nn.Module, Tree], Any]) -> None:
        super().__init__()
        self.module, self.score = module, score

    def forward(self, tree: Tree) -> Any:
        return self.score(self.module, tree)

    def at(self, parameters: dict[str, Tensor], tree: Tree) -> Any:
        """The score with other values of the parameters."""
        return functional_call(self, {f"module.{name}": value for name, value in parameters.items()}, (tree,))


Gradients = tuple[Tensor, Tensor]  # losses [W], gradients [W, J]
#: (x [W, J], samples [W, b, ...], seeds, share of the batch, gradient [W, J] to add to) -> losses [W]
Way = Callable[[Tensor, Tree, Sequence[int], float, Tensor], Tensor]
SMALL = 2**20  # parameters of the largest model for which ``auto`` tries fold and vmap
TOLERANCE = 1e-3  # relative difference between the gradients of a fold and of the loop that rounding may explain


class ModuleGradients:
    """The task's mean loss over each worker's batch, and its gradient in the flat vector.

    ``speed.workers``: the way for several workers; ``auto`` follows the rule above. ``deterministic`` means ``loop``.
    ``random``: whether the module draws random numbers. ``speed.accumulate``: a batch is computed in so many pieces.
    ``speed.part``: the pieces of this process, with one worker.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        deterministic: bool = False,
        speed: GradientOptions | None = None,
        random: bool = False,
    ) -> None:
        self.layout = FlatLayout(module)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.module, self.task, self.speed = module.requires_grad_(False), task, speed or GradientOptions()
        self._ways: dict[str, Way] = {"fold": self.folded, "vmap": self.vmapped, "loop": self.looped}
        self.random = random
        only_loop = deterministic or self.speed.compile or (random and self.speed.workers == "auto")
        self._wanted = "loop" if only_loop else self.speed.workers
        self._way: Way | None = None
        self._fold: type[Fold] | None = None  # the fold that the module supports
        self._folding: Fold | None = None
        self._stacked: list[Tensor] = []
        self._stacked_of: object = None  # the addresses of x and the gradient, and the layout of x
        numbers = {id(p): i for i, p in enumerate(self.parameters)}
        #: where the module's layers keep each parameter: the layer's table, the name in it, the parameter's number
        self._places: list[tuple[dict[str, Any], str, int]] = [
            (layer._parameters, name, numbers[id(p)])
            for layer in module.modules()
            for name, p in layer._parameters.items()
            if id(p) in numbers
        ]
        self._run: nn.Module = torch.compile(module) if self.speed.compile else module  # type: ignore[assignment]
        self._loss = Scored(module, task.losses)
        self._starts = list(accumulate(self.layout.sizes, initial=0))
        self.bound: tuple[Tensor, Tensor] | None = None  # x and the gradient, of which the parameters are views
        self._grad: Tensor | None = None  # allocating one would cost as much as filling it
        self._ready: Ready | None = None
        self._watched = False
        self._missing: set[int] = set()

    def __call__(self, x: Tensor, batch: Batch, ready: Ready | None = None) -> Gradients:
        """x [W, J]. The next call may overwrite the gradients. ``ready``: see Problem.loss_and_grad."""
        if self._grad is None or self._grad.shape != x.shape:
            self._grad = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        grad, pieces, (mine, parts) = self._grad.zero_(), self.speed.accumulate, self.speed.part
        if x.shape[0] == 1:
            way: Way = partial(self.looped, ready=ready)
        else:
            if self._way is None:
                self.choose(len(x), tree_map(lambda t: t[0, :2], batch.tree))
            assert self._way is not None
            way = self._way
        if pieces * parts == 1:
            return way(x, batch.tree, batch.seeds, 1.0, grad), grad
        losses, split = x.new_zeros(len(x)), list(enumerate(_split(batch.tree, pieces * parts)))
        own = split[mine * pieces : (mine + 1) * pieces]
        for i, (part, share) in own:
            if len(x) == 1:
                way = partial(self.looped, ready=ready if i == own[-1][0] else None)
            losses += share * way(x, part, [derive(seed, i) for seed in batch.seeds], share, grad)
        return losses, grad

    def by(self, way: str, x: Tensor, batch: Batch) -> Gradients:
        """The same by the way of this name: fold, vmap or loop. Raises CannotFoldError or RuntimeError where module and
        task do not support it."""
        grad = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
        if way == "fold" and self._fold is None:
            self._try(way, tree_map(lambda t: t[0, :2], batch.tree))  # finds the axis of the workers
        return self._ways[way](x, batch.tree, batch.seeds, 1.0, grad), grad

    def choose(self, workers: int, example: Tree) -> str:
        """Chooses the way for ``workers`` workers and returns its name; ``example``: a batch of two samples. Raises
        CannotFoldError or RuntimeError if module and task do not support the way that ``speed.workers`` names."""
        if workers == 1:
            return "one"
        name = self._wanted
        if name == "auto":
            name = next((w for w in ("fold", "vmap") if self.layout.dim <= SMALL and self._allows(w, example)), "loop")
        elif name != "loop":
            self._try(name, example)
        self._way = self._ways[name]
        return name

    def _allows(self, name: str, example: Tree) -> bool:
        try:
            self._try(name, example)
        except Exception:  # whatever a module raises that is called in a way it was not written for
            return False
        return True

    def _try(self, name: str, example: Tree) -> None:
        """Tries the way on two workers with the two samples, in either order, to save memory. Raises what the way
        raises."""
        if self.random:
            raise CannotFoldError("it draws random numbers, each worker its own")
        like = self.parameters[0]
        start = torch.cat([p.detach().flatten() for p in self.parameters])
        x = torch.stack([start, 0.9 * start])
        tree = tree_map(lambda t: torch.stack([t, t.flip(0)]), example)
        expected, found = like.new_zeros(x.shape), like.new_zeros(x.shape)
        if name == "vmap":
            for models in (x, start.expand(2, -1)):  # one model for all workers is a case of its own
                self.looped(models, tree, (), 1.0, expected.zero_())
                self.vmapped(models, tree, (), 1.0, found.zero_())
                if not self._alike(found, expected):
                    raise CannotFoldError("its gradients are others then")
            return
        if not self.task.foldable:
            raise CannotFoldError("a loss of one's own")
        self.looped(x, tree, (), 1.0, expected)
        failure: Exception | None = None
        for self._fold in (SampleFold, ChannelFold):
            try:
                with warnings.catch_warnings():  # torch says once that stacked parameters are not dense
                    warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout contract")
                    self.folded(x, tree, (), 1.0, found.zero_())
            except (CannotFoldError, RuntimeError, ValueError, IndexError) as error:
                failure = failure or error
                continue
            if self._alike(found, expected):
                return
            failure = CannotFoldError("its gradients are others then")
        assert failure is not None
        raise failure

    def _alike(self, found: Tensor, expected: Tensor) -> bool:
        return self.speed.amp or float((found - expected).norm()) <= TOLERANCE * float(expected.norm())

    # -- what all ways share

    def _prepared(self, tree: Tree) -> Tree:
        """Images in the memory format of the options."""
        if not self.speed.channels_last:
            return tree
        last = torch.channels_last
        return tree_map(lambda t: t.contiguous(memory_format=last) if t.ndim == 4 else t, tree)

    def _precision(self) -> AbstractContextManager[None]:
        if not self.speed.amp:
            return nullcontext()
        return torch.autocast(self.parameters[0].device.type, torch.bfloat16)

    def mean_loss(self, module: Callable[..., Any], tree: Tree, weights: Tensor | None = None) -> Tensor:
        """The mean of the losses, or their sum with ``weights`` [b]; of a task whose loss is a scalar, all weights are
        to be equal."""
        with self._precision():
            losses = self.task.losses(module, self._prepared(tree))
        if losses.ndim == 0:
            return losses if weights is None else losses * weights.sum()
        return losses.mean() if weights is None else losses @ weights

    # -- one worker at a time

    @torch.enable_grad()
    def one(
        self,
        x: Tensor,
        tree: Tree,
        out: Tensor,
        ready: Ready | None = None,
        seed: int | None = None,
        share: float = 1.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        """x [J], samples [b, ...] -> loss; adds ``share`` of the gradient to ``out`` [J]."""
        self._bind(x, out)
        if ready is not None:
            self._watch()
            self._missing = set(range(len(self.layout.sizes)))
        self._ready = ready
        with nullcontext() if seed is None else global_draws(seed, x.device):
            loss = self.mean_loss(self._run, tree, weights)
            if not loss.requires_grad:
                raise TaskError("loss: does not depend on the module's parameters; return one that torch can derive")
            (loss if share == 1.0 else loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _bind(self, x: Tensor, out: Tensor) -> None:
        """Makes the module's parameters views of x and their gradients views of ``out``, if they are not already."""
        if self.bound is not None and [t.data_ptr() for t in self.bound] == [x.data_ptr(), out.data_ptr()]:
            return  # self.bound keeps both alive, so no other tensor can have these addresses
        first, self.bound = self.bound is None, (x, out)
        views = zip(self.layout.views(x.detach()).values(), self.layout.views(out).values(), strict=True)
        for p, (value, grad) in zip(self.parameters, views, strict=True):
            p.data, p.grad = value, grad
            if first:
                p.requires_grad_()

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            for i, p in enumerate(self.parameters):
                p.register_post_accumulate_grad_hook(lambda _, i=i: self._written(i))  # type: ignore[no-untyped-call]

    def _written(self, number: int) -> None:
        """Reports the index from which on all entries of the gradient are final."""
        if self._ready is None:
            return
        self._missing.discard(number)
        last = max(self._missing, default=-1)
        if last < number and self.bound is not None:
            self._ready(self.bound[1], self._starts[last + 1])

    def looped(
        self,
        x: Tensor,
        tree: Tree,
        seeds: Sequence[int],
        share: float,
        grad: Tensor,
        ready: Ready | None = None,
    ) -> Tensor:
        losses = [
            self.one(x[w], tree_map(lambda t, w=w: t[w], tree), grad[w], ready, seeds[w] if seeds else None, share)  # type: ignore[misc]
            for w in range(x.shape[0])
        ]
        return torch.stack(losses)

    # -- all workers at once

    def vmapped(self, x: Tensor, tree: Tree, seeds: Sequence[int], share: float, grad: Tensor) -> Tensor:
        def loss(params: dict[str, Tensor], tree: Tree) -> Tensor:
            with self._precision():
                losses = self._loss.at(params, self._prepared(tree))
            mean: Tensor = losses.mean()
            return mean

        shared = x.stride(0) == 0
        params = self.layout.views(x[0] if shared else x)
        losses: Tensor
        with warnings.catch_warnings():  # that an operation has no batching rule, and torch loops over the workers
            warnings.filterwarnings("ignore", message="There is a performance drop")
            grads, losses = vmap(grad_and_value(loss), in_dims=(None if shared else 0, 0))(params, tree)
        for out, one in zip(self.layout.views(grad).values(), grads.values(), strict=True):
            out.add_(one, alpha=share)
        return losses

    def _stack(self, x: Tensor, out: Tensor) -> Fold:
        """Makes ``_stacked`` parameters [W, ...] in the memory of x [W, J], with gradients in that of ``out``, if they
        are not already; the fold for them."""
        assert self._fold is not None
        of = x.data_ptr(), x.shape, x.stride(), out.data_ptr(), self._fold
        if self._folding is None or of != self._stacked_of:
            self._stacked_of = of
            self._stacked = [p.requires_grad_() for p in self.layout.views(x.detach()).values()]
            for p, gradient in zip(self._stacked, self.layout.views(out).values(), strict=True):
                p.grad = gradient
            self._folding = self._fold(self._stacked)
        return self._folding

    @torch.enable_grad()
    def folded(self, x: Tensor, tree: Tree, seeds: Sequence[int], share: float, grad: Tensor) -> Tensor:
        workers, channels = x.shape[0], self._fold is ChannelFold
        out = grad if share == 1.0 else torch.zeros_like(grad)
        fold = self._stack(x, out)

        def call(*inputs: Tensor) -> Tensor:
            if channels:
                inputs = tuple(self._prepared(to_channels(t.view(workers, -1, *t.shape[1:]))) for t in inputs)
            for place, name, number in self._places:
                place[name] = self._stacked[number]
            try:
                with fold:
                    output: Tensor = self.module(*inputs)
            finally:
                for place, name, number in self._places:
                    place[name] = self.parameters[number]
            return from_channels(output, workers).flatten(0, 1) if channels else output

        with self._precision():
            losses = self.task.losses(call, tree_map(lambda t: t.flatten(0, 1), tree)).view(workers, -1).mean(1)
        losses.sum().backward()  # type: ignore[no-untyped-call]  # (of a vector torch would import sympy)
        if out is not grad:
            grad.add_(out, alpha=share)
        return losses.detach()


def _split(tree: Tree, pieces: int) -> Iterator[tuple[Tree, float]]:
    """[W, b, ...] in ``pieces`` pieces along the samples, and the share of the samples in each."""
    size = next(tensors(tree)).shape[1]
    ends = [size * i // pieces for i in range(pieces + 1)]
    for first, end in pairwise(ends):
        if end > first:
            yield tree_map(lambda t: t[:, first:end], tree), (end - first) / size  # noqa: B023  (used at once)


__all__ = ["Batch", "CannotFoldError", "FlatLayout", "ModuleGradients", "Scored"]
