"""Losses and gradients of W workers for any torch module, the fastest way that the module allows.

one        W = 1: plain autograd; parameters and gradients are views of flat buffers, nothing is copied
folded     the workers in the channel axis (folding.py): convolution, linear, group norm, pooling
vmapped    torch.func.vmap over workers: whatever has a batching rule and keeps no running statistics
looped     worker by worker: always possible, and bit for bit what W = 1 gives
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from commexp.problems.base import Ready
from commexp.problems.flat import FlatLayout
from commexp.problems.folding import CannotFoldError, Folded, fold, unfold

Gradients = tuple[Tensor, Tensor]  # losses [W], gradients [W, J]


class ModuleGradients:
    """Cross entropy of a module's output, mean over each worker's batch, and its gradient by the flat vector."""

    def __init__(self, module: nn.Module, deterministic: bool = False) -> None:
        self.module = module.requires_grad_(False)
        self.layout = FlatLayout(module)
        self._ways: list[Callable[[Tensor, Tensor, Tensor], Gradients]] = [self.folded, self.vmapped, self.looped]
        if deterministic:
            self._ways = [self.looped]

    def __call__(self, x: Tensor, inputs: Tensor, targets: Tensor, ready: Ready | None = None) -> Gradients:
        """x [W, J], inputs [W, b, ...], targets [W, b]. ``ready``: see Problem.loss_and_grad."""
        if len(x) == 1:
            grad = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            return self.one(x[0], inputs[0], targets[0], grad[0], ready)[None], grad
        while len(self._ways) > 1:
            try:
                return self._ways[0](x, inputs, targets)
            except (CannotFoldError, RuntimeError):  # a genuine mistake comes again from the last way
                del self._ways[0]
        return self._ways[0](x, inputs, targets)

    def one(self, x: Tensor, inputs: Tensor, targets: Tensor, out: Tensor, ready: Ready | None = None) -> Tensor:
        """x [J], inputs [b, ...] -> loss; the gradient is written over ``out`` [J]."""
        out.zero_()
        params = self.layout.views(x.detach())
        for p, g in zip(params.values(), self.layout.views(out).values(), strict=True):
            p.requires_grad_().grad = g
        if ready is not None:
            self._watch(list(params.values()), out, ready)
        loss = F.cross_entropy(functional_call(self.module, params, (inputs,)), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _watch(self, params: list[Tensor], out: Tensor, ready: Ready) -> None:
        """Calls ``ready`` whenever all gradients behind a place have been written."""
        starts = list(accumulate(self.layout.sizes, initial=0))
        missing = set(range(len(params)))

        def written(number: int) -> None:
            missing.discard(number)
            last = max(missing, default=-1)
            if last < number:
                ready(out, starts[last + 1])

        for i, p in enumerate(params):
            p.register_post_accumulate_grad_hook(lambda _, i=i: written(i))  # type: ignore[no-untyped-call]

    def looped(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Gradients:
        grad = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        losses = [self.one(*each) for each in zip(x, inputs, targets, grad, strict=True)]
        return torch.stack(losses), grad

    def vmapped(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Gradients:
        def loss(params: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.module, params, (inputs,)), targets)

        shared = x.stride(0) == 0
        params = self.layout.views(x[0] if shared else x)
        grads, losses = vmap(grad_and_value(loss), in_dims=(None if shared else 0, 0, 0))(params, inputs, targets)
        return losses, self.layout.flatten(list(grads.values()), len(x))

    def folded(self, x: Tensor, inputs: Tensor, targets: Tensor) -> Gradients:
        workers = len(x)
        params = {name: p.requires_grad_() for name, p in self.layout.views(x.detach()).items()}
        images = fold(inputs)
        with Folded(params.values()):
            logits = functional_call(self.module, params, (images,))
        logits = unfold(logits, workers)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(workers, -1).mean(1)
        grads = torch.autograd.grad(losses.sum(), list(params.values()))
        return losses.detach(), self.layout.flatten(list(grads), workers)
