"""Gradients of W workers in one pass: the workers folded into the channel axis.

The batches of W workers, b samples each, are concatenated along the channel axis, [b, W C, H, W']. A convolution
becomes a convolution with W groups, a group norm one with W times as many groups, and a linear layer a batched product,
each with the workers' own parameters [W, ...]; autograd then yields separate gradients. ``Folded`` replaces the
operations while a module runs. An operation that is not known to treat channels independently raises
``CannotFoldError``.

scripts/bench_core.py compares this, on a small residual network, with one worker on the whole batch and with
torch.func.vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


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
