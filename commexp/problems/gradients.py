"""Losses and gradients of W workers for any torch module, in one of four ways.

one        W = 1: plain autograd; parameters and gradients are views of flat buffers, nothing is copied
fold       the workers in the channel axis (folding.py): convolution, linear, batch and group norm, pooling
vmap       torch.func.vmap over workers: for operations with a batching rule and without running statistics
loop       worker by worker: always possible, with the same bits as W = 1

The ways sum in different orders, so their results differ in the last digits. ``auto`` therefore depends only on the
model and W, not on speed measurements: a model of at most 2^20 parameters uses the first of fold, vmap and loop that
its layers support, a larger one loop. A small model spends its time on calls, of which fold and vmap make W times
fewer; a large one on arithmetic, to which they add copies. scripts/bench_ways.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from commexp.problems.base import GradientOptions, Ready
from commexp.problems.flat import FlatLayout
from commexp.problems.folding import CannotFoldError, Folded, fold, unfold

Gradients = tuple[Tensor, Tensor]  # losses [W], gradients [W, J]
Way = Callable[[Tensor, Tensor, Tensor], Gradients]
SMALL = 2**20  # parameters of the largest model for which ``auto`` tries fold and vmap


class ModuleGradients:
    """Cross entropy of a module's output, mean over each worker's batch, and its gradient in the flat vector.

    ``speed.workers``: the way for several workers; ``auto`` follows the rule above. ``deterministic`` means ``loop``.
    """

    def __init__(self, module: nn.Module, deterministic: bool = False, speed: GradientOptions | None = None) -> None:
        self.module, self.speed = module.requires_grad_(False), speed or GradientOptions()
        self.layout = FlatLayout(module)
        self._ways: dict[str, Way] = {"fold": self.folded, "vmap": self.vmapped, "loop": self.looped}
        self._wanted = "loop" if deterministic or self.speed.compile else self.speed.workers
        self._way: Way | None = None
        self._run: Callable[[Tensor], Tensor] = torch.compile(module) if self.speed.compile else module
        self._starts = list(accumulate(self.layout.sizes, initial=0))
        self._bound: tuple[Tensor, Tensor] | None = None
        self._grad: Tensor | None = None  # buffer for W = 1: allocating one would cost as much as filling it
        self._ready: Ready | None = None
        self._missing: set[int] = set()

    def __call__(self, x: Tensor, inputs: Tensor, targets: Tensor, ready: Ready | None = None) -> Gradients:
        """x [W, J], inputs [W, b, ...], targets [W, b]. ``ready``: see Problem.loss_and_grad."""
        if len(x) == 1:
            if self._grad is None:
                self._grad = torch.empty(x.shape[1], dtype=x.dtype, device=x.device)
            return self.one(x[0], inputs[0], targets[0], self._grad, ready)[None], self._grad[None]
        if self._way is None:
            self.choose(len(x), inputs.shape[2:])
            assert self._way is not None
        return self._way(x, inputs, targets)

    def choose(self, workers: int, shape: Sequence[int]) -> str:
        """Chooses the way for ``workers`` workers and returns its name; ``shape``: that of one input. Raises
        CannotFoldError or RuntimeError if the module does not support the way that ``speed.workers`` names."""
        if workers == 1:
            return "one"
        name = self._wanted
        if name == "auto":
            name = next((w for w in ("fold", "vmap") if self.layout.dim <= SMALL and self._allows(w, shape)), "loop")
        elif name != "loop":
            self._try(name, shape)
        self._way = self._ways[name]
        return name

    def _allows(self, name: str, shape: Sequence[int]) -> bool:
        try:
            self._try(name, shape)
        except (CannotFoldError, RuntimeError):
            return False
        return True

    def _try(self, name: str, shape: Sequence[int]) -> None:
        """Tries the way on two workers with two samples each, to save memory."""
        like = next(self.module.parameters())
        x, inputs = like.new_zeros(2, self.layout.dim), like.new_zeros(2, 2, *shape)
        self._ways[name](x, inputs, torch.zeros(2, 2, dtype=torch.long, device=like.device))

    def output(self, inputs: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """``run`` on images, in the precision and the memory format of the options."""
        if self.speed.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if not self.speed.amp:
            return run(inputs)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return run(inputs).to(inputs.dtype)

    def one(self, x: Tensor, inputs: Tensor, targets: Tensor, out: Tensor, ready: Ready | None = None) -> Tensor:
        """x [J], inputs [b, ...] -> loss; writes the gradient to ``out`` [J]."""
        self._bind(x, out)
        self._ready, self._missing = ready, set(range(len(self.layout.sizes)))
        out.zero_()
        loss = F.cross_entropy(self.output(inputs, self._run), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _bind(self, x: Tensor, out: Tensor) -> None:
        """Makes the module's parameters views of x and their gradients views of ``out``, if they are not already."""
        first = self._bound is None
        if self._bound is not None and [t.data_ptr() for t in self._bound] == [x.data_ptr(), out.data_ptr()]:
            return  # self._bound keeps both alive, so no other tensor can have these addresses
        self._bound = x, out
        views = zip(self.layout.views(x.detach()).values(), self.layout.views(out).values(), strict=True)
        for i, (p, (value, grad)) in enumerate(zip(self.module.parameters(), views, strict=True)):
            p.data, p.grad = value, grad
            if first:
                watched = p.requires_grad_()
                watched.register_post_accumulate_grad_hook(lambda _, i=i: self._written(i))  # type: ignore[no-untyped-call]

    def _written(self, number: int) -> None:
        """Reports the index from which on all entries of the gradient are final."""
        if self._ready is None:
            return
        self._missing.discard(number)
        last = max(self._missing, default=-1)
        if last < number and self._bound is not None:
            self._ready(self._bound[1], self._starts[last + 1])

    def looped(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Gradients:
        grad = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        losses = [self.one(*each) for each in zip(x, inputs, targets, grad, strict=True)]
        return torch.stack(losses), grad

    def vmapped(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Gradients:
        def loss(params: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            logits = self.output(inputs, lambda images: functional_call(self.module, params, (images,)))
            return F.cross_entropy(logits, targets)

        shared = x.stride(0) == 0
        params = self.layout.views(x[0] if shared else x)
        grads, losses = vmap(grad_and_value(loss), in_dims=(None if shared else 0, 0, 0))(params, inputs, targets)
        return losses, self.layout.flatten(list(grads.values()), len(x))

    def folded(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Gradients:
        workers = len(x)
        params = {name: p.requires_grad_() for name, p in self.layout.views(x.detach()).items()}
        images = fold(inputs)

        def run(rows: Tensor) -> Tensor:
            with Folded(params.values()):
                logits: Tensor = functional_call(self.module, params, (rows,))
            return logits

        logits = unfold(self.output(images, run), workers)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(workers, -1).mean(1)
        grads = torch.autograd.grad(losses.sum(), list(params.values()))
        return losses.detach(), self.layout.flatten(list(grads), workers)
