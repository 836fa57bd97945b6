"""Losses and gradients of W workers for any torch module, in one of four ways.

one        W = 1: plain autograd; parameters and gradients are views of flat buffers, nothing is copied
fold       the workers in the channel axis (``Folded``): convolution, linear, batch and group norm, pooling
vmap       torch.func.vmap over workers: for operations with a batching rule and without running statistics
loop       worker by worker: always possible, with the same bits as W = 1

The ways sum in different orders, so their results differ in the last digits. ``auto`` therefore depends only on the
model and W, not on speed measurements: a model of at most 2^20 parameters uses the first of fold, vmap and loop that
its layers support, a larger one loop. A small model spends its time on calls, of which fold and vmap make W times
fewer; a large one on arithmetic, to which they add copies. scripts/bench_ways.py compares them.

To fold: the batches of W workers, b samples each, are concatenated along the channel axis, [b, W C, H, W']. A
convolution becomes a convolution with W groups, a group norm one with W times as many groups, and a linear layer a
batched product, each with the workers' own parameters [W, ...]; autograd then yields separate gradients. ``Folded``
replaces the operations while a module runs. An operation that is not known to treat channels independently raises
``CannotFoldError``. scripts/bench_core.py compares this, on a small residual network, with one worker on the whole
batch and with torch.func.vmap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.overrides import TorchFunctionMode

from commexp.problems.base import GradientOptions, Ready


class FlatLayout:
    """The position of each parameter of a module in the flat vector x of length J = ``dim``."""

    def __init__(self, module: nn.Module) -> None:
        self.shapes = {name: p.shape for name, p in module.named_parameters()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.dim = sum(self.sizes)

    def views(self, x: Tensor) -> dict[str, Tensor]:
        """x [..., J] -> parameters [..., *shape] that share its memory."""
        pieces = torch.split(x, self.sizes, dim=-1)
        return {
            name: piece.view(*x.shape[:-1], *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def flatten(self, tensors: list[Tensor], workers: int) -> Tensor:
        """Tensors [W, *shape] in the module's order -> [W, J]."""
        return torch.cat([t.reshape(workers, -1) for t in tensors], dim=1)


class CannotFoldError(Exception):
    """A module uses an operation that cannot be folded."""


def fold(x: Tensor) -> Tensor:
    """[W, b, C, ...] -> [b, W C, ...]."""
    return x.transpose(0, 1).flatten(1, 2)


def unfold(x: Tensor, workers: int) -> Tensor:
    """[b, W C] -> [W, b, C]."""
    return x.view(len(x), workers, -1).transpose(0, 1)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """x [b, W C, H, W'], weight [W, O, C / groups, k, k], bias [W, O] -> [b, W O, H', W'']."""
    flat = None if bias is None else bias.flatten()
    return F.conv2d(x, weight.flatten(0, 1), flat, stride, padding, dilation, len(weight) * groups)


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x [b, W C, ...], weight and bias [W, C]."""
    if weight is None or bias is None:
        raise CannotFoldError("group norm without weights")
    return F.group_norm(x, len(weight) * num_groups, weight.flatten(), bias.flatten(), eps)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """x [b, W C, ...], weight and bias [W, C]; every channel has its own statistics."""
    if running_mean is not None or weight is None or bias is None:
        raise CannotFoldError("batch norm with running statistics, or without weights")
    return F.batch_norm(x, None, None, weight.flatten(), bias.flatten(), True, momentum, eps)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [b, W I], weight [W, O, I], bias [W, O] -> [b, W O]."""
    if x.ndim != 2:
        raise CannotFoldError("a linear layer on more than vectors")
    rows, columns = unfold(x, len(weight)), weight.transpose(1, 2)
    return fold(torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias[:, None], rows, columns))


def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The channel axis is the outermost in the flat vector, so the workers stay separate blocks."""
    if start_dim != 1:
        raise CannotFoldError("flattening of the batch axis, or within the image")
    return x.flatten(start_dim, end_dim)


class Folded(TorchFunctionMode):
    """While active, layers take stacked parameters [W, ...] and activations with the workers as channels."""

    RULES: dict[Any, Callable[..., Tensor]] = {  # noqa: RUF012  (a table, never written to)
        F.conv2d: _conv2d,
        F.group_norm: _group_norm,
        F.batch_norm: _batch_norm,
        F.linear: _linear,
        torch.Tensor.flatten: _flatten,
        torch.flatten: _flatten,
    }
    ABOUT = frozenset({torch.Tensor.dim, torch.Tensor.is_contiguous})
    CHANNEL_BY_CHANNEL = frozenset(
        {
            *(F.relu, torch.relu, torch.tanh, torch.sigmoid, torch.Tensor.relu, torch.Tensor.tanh, F.gelu, F.silu),
            *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
            *(torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__iadd__, torch.Tensor.add_),
        }
    )

    def __init__(self, stacked: Iterable[Tensor]) -> None:
        super().__init__()
        self.stacked = {id(p): len(p) for p in stacked}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = self.RULES.get(func)
        if rule is not None:
            return rule(*args, **kwargs)
        if func is F.pad:
            return self._pad(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__" or func in self.ABOUT:  # a shape, a device, ...
            return func(*args, **kwargs)
        if func not in self.CHANNEL_BY_CHANNEL or any(id(a) in self.stacked for a in (*args, *kwargs.values())):
            raise CannotFoldError(name)
        return func(*args, **kwargs)

    def _pad(self, x: Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
        """Pads within the image, or each worker's channels separately."""
        if len(pad) <= 4:
            return F.pad(x, pad, mode, value)
        if len(pad) > 6 or mode != "constant":
            raise CannotFoldError("padding of the batch axis")
        workers = next(iter(self.stacked.values()))
        per_worker = x.view(len(x), workers, -1, *x.shape[2:])
        return F.pad(per_worker, pad, mode, value).flatten(1, 2)


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
