"""Gradients of W workers in one pass: the workers folded into the batch axis.

Every layer without parameters already treats samples one by one, so the batches of W workers may run through it as
one batch of W b samples. Layers with parameters must keep the workers' gradients apart. ``Folded`` intercepts them
(convolution, linear, group norm) while a module runs with stacked parameters [W, *shape]; anything else that touches
a stacked parameter, or mixes samples, raises ``CannotFoldError``.

Where all workers stand at the same x, the forward pass and the gradient of the inputs cost what one worker with the
whole batch costs; only the gradient of the weights is taken worker by worker, as a grouped convolution. Measured
against torch.func.vmap on a small residual network with 32 workers: about 1.7 times faster (scripts/bench_core.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


class CannotFoldError(Exception):
    """A module uses a parameter in a way that has no rule here."""


def _to_channels(x: Tensor, workers: int) -> Tensor:
    """[W b, C, ...] -> [b, W C, ...]."""
    b = x.shape[0] // workers
    return x.view(workers, b, *x.shape[1:]).transpose(0, 1).reshape(b, -1, *x.shape[2:])


def _to_batch(x: Tensor, workers: int) -> Tensor:
    """[b, W C, ...] -> [W b, C, ...]."""
    return x.view(x.shape[0], workers, -1, *x.shape[2:]).transpose(0, 1).flatten(0, 1)


class _Conv2d(torch.autograd.Function):
    """x [W b, C, H, W'], weight [W, O, C, k, k]; stride 0 along the workers means they share it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
        workers = weight.shape[0]
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding, dilation)
        if weight.stride(0) == 0:
            return F.conv2d(x, weight[0], None, stride, padding, dilation)
        y = F.conv2d(_to_channels(x, workers), weight.flatten(0, 1), None, stride, padding, dilation, workers)
        return _to_batch(y, workers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        workers, dy = weight.shape[0], grads[0]

        def backward(dy: Tensor, x: Tensor, weight: Tensor, groups: int, inputs: bool, weights: bool) -> list[Tensor]:
            mask = [inputs, weights, False]
            out: list[Tensor] = aten.convolution_backward(
                dy, x, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
            )
            return out

        dx: Tensor | None = None
        need = ctx.needs_input_grad[0]
        shared = weight.stride(0) == 0
        if shared and need:
            dx = backward(dy, x, weight[0], 1, True, False)[0]
        grouped = backward(
            _to_channels(dy, workers),
            _to_channels(x, workers),
            weight.flatten(0, 1),
            workers,
            need and not shared,
            True,
        )
        if need and not shared:
            dx = _to_batch(grouped[0], workers)
        return dx, grouped[1].view(weight.shape), None, None, None


class _GroupNorm(torch.autograd.Function):
    """Group norm (arXiv 1803.08494) of x [W b, C, ...] with weight and bias [W, C]. Per worker,

    dweight[c] = sum_i rstd (sum_p dy x - mean sum_p dy),   dbias[c] = sum_i sum_p dy   (samples i, positions p).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        workers, (n, c), p = weight.shape[0], x.shape[:2], x[0, 0].numel()
        shared = weight.stride(0) == 0
        affine = (weight[0], bias[0]) if shared else (None, None)
        y: Tensor
        y, mean, rstd = aten.native_group_norm(x, *affine, n, c, p, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        if shared:
            return y
        y = torch.addcmul(bias[:, None, :, None], y.view(workers, -1, c, p), weight[:, None, :, None])
        return y.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        workers, (n, c), p, groups = weight.shape[0], x.shape[:2], x[0, 0].numel(), ctx.groups
        dy = grads[0].contiguous()
        sum_dy = dy.view(n, c, p).sum(2)
        sum_dyx = (dy * x).view(n, c, p).sum(2)
        per_group = (n, groups, c // groups)
        centred = (sum_dyx.view(per_group) - sum_dy.view(per_group) * mean[..., None]) * rstd[..., None]
        shared = weight.stride(0) == 0
        if not shared:
            dy = (dy.view(workers, -1, c, p) * weight[:, None, :, None]).view_as(x)
        dx, _, _ = aten.native_group_norm_backward(
            dy, x, mean, rstd, weight[0] if shared else None, n, c, p, groups, [True, False, False]
        )
        return dx, None, centred.view(workers, -1, c).sum(1), sum_dy.view(workers, -1, c).sum(1), None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [W b, ..., I], weight [W, O, I], bias [W, O] -> [W b, ..., O]."""
    workers = weight.shape[0]
    rows = x.reshape(workers, -1, x.shape[-1])
    y = torch.bmm(rows, weight.transpose(1, 2)) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return y.view(*x.shape[:-1], -1)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if groups != 1 or isinstance(padding, str):
        raise CannotFoldError("grouped convolution, or padding by name")
    pair = [list(v) if isinstance(v, (tuple, list)) else [v, v] for v in (stride, padding, dilation)]
    y: Tensor = _Conv2d.apply(x, weight, *pair)
    if bias is None:
        return y
    workers, c = bias.shape
    return (y.view(workers, -1, c, *y.shape[2:]) + bias.view(workers, 1, c, 1, 1)).view_as(y)


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    if weight is None or bias is None:
        return F.group_norm(x, num_groups, eps=eps)
    y: Tensor = _GroupNorm.apply(x, num_groups, weight, bias, eps)
    return y


class Folded(TorchFunctionMode):
    """While active, layers take stacked parameters [W, *shape] and a batch of W b samples, worker by worker."""

    RULES: dict[Any, Callable[..., Tensor]] = {  # noqa: RUF012  (a table, never written to)
        F.conv2d: _conv2d,
        F.group_norm: _group_norm,
        F.linear: _linear,
    }
    MIXES_SAMPLES = (F.batch_norm,)

    def __init__(self, stacked: Iterable[Tensor]) -> None:
        super().__init__()
        self.stacked = {id(p) for p in stacked}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = self.RULES.get(func)
        mine = any(id(a) in self.stacked for a in (*args, *kwargs.values()))
        if rule is not None and mine:
            return rule(*args, **kwargs)
        if func in self.MIXES_SAMPLES or (mine and getattr(func, "__name__", "") != "__get__"):
            raise CannotFoldError(getattr(func, "__name__", str(func)))
        return func(*args, **kwargs)
