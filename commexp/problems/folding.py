"""Folding: the batches of W workers as one batch, through a module whose parameters are stacked, [W, ...].

Autograd then yields separate gradients. While a module runs, a fold replaces the operations that have parameters; an
operation that is not known to treat the workers independently raises ``CannotFoldError``. There are two:

samples    the workers in the sample axis, [W b, ...]: linear layers as batched matrix products, embeddings, layer and
           RMS norm, attention; for networks on vectors and sequences
channels   the workers in the channel axis, [b, W C, H, W']: a convolution becomes one with W groups, a group norm one
           with W times as many groups; for networks on images

scripts/bench_core.py and scripts/bench_lm.py compare them with one worker on the whole batch, and with torch.func.vmap.
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


class Fold(TorchFunctionMode):
    """While active, layers take stacked parameters [W, ...], ``stacked``, and folded activations. ``rules``: what
    replaces an operation with parameters. ``independent``: operations on activations alone that treat the workers
    independently."""

    rules: dict[Any, Callable[..., Tensor]]
    independent: frozenset[Any]

    def __init__(self, stacked: Iterable[Tensor]) -> None:
        super().__init__()
        self.stacked = {id(p): p.shape[0] for p in stacked}
        self.workers = next(iter(self.stacked.values()))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = self.rules.get(func)
        if rule is not None:
            return rule(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__" or func in ABOUT:  # a shape, a device, ...
            return func(*args, **kwargs)
        if any(id(a) in self.stacked for a in (*args, *kwargs.values())):
            raise CannotFoldError(name)
        if func in self.independent:
            return func(*args, **kwargs)
        return self.other(func, name, args, kwargs)

    def other(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Any other operation on activations. Raises CannotFoldError."""
        raise CannotFoldError(name)


ABOUT = frozenset({torch.Tensor.dim, torch.Tensor.size, torch.Tensor.numel, torch.Tensor.is_contiguous})
ELEMENTWISE = frozenset(
    {
        *(F.relu, torch.relu, torch.tanh, torch.sigmoid, torch.Tensor.relu, torch.Tensor.tanh, F.gelu, F.silu),
        *(torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__iadd__, torch.Tensor.add_),
    }
)


# -- the workers in the sample axis


def _stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [W b, ..., I], weight [W, O, I], bias [W, O] -> [W b, ..., O]."""
    rows, columns = x.reshape(weight.shape[0], -1, x.shape[-1]), weight.transpose(1, 2)
    y = torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, columns)
    return y.view(*x.shape[:-1], weight.shape[1])


def _stacked_embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """input [W b, ...], weight [W, V, C] -> [W b, ..., C]: one table of W V rows."""
    if padding_idx is not None or max_norm is not None or scale_grad_by_freq or sparse:
        raise CannotFoldError("an embedding with options")
    workers, rows = weight.shape[:2]
    first = torch.arange(0, workers * rows, rows, device=input.device)
    places = input.reshape(workers, -1) + first[:, None]
    return F.embedding(places, weight.flatten(0, 1)).view(*input.shape, -1)


def _stacked_layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """input [W b, ..., C], weight and bias [W, C]."""
    if len(normalized_shape) != 1:
        raise CannotFoldError("layer norm over several axes")
    return _scaled(F.layer_norm(input, normalized_shape, None, None, eps), weight, bias)


def _stacked_rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """input [W b, ..., C], weight [W, C]."""
    if len(normalized_shape) != 1:
        raise CannotFoldError("RMS norm over several axes")
    return _scaled(F.rms_norm(input, normalized_shape, None, eps), weight, None)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is None:
        return x
    rows = x.view(weight.shape[0], -1, x.shape[-1])
    rows = rows * weight.unsqueeze(1) if bias is None else torch.addcmul(bias.unsqueeze(1), rows, weight.unsqueeze(1))
    return rows.view(x.shape)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    """[W b, heads, T, d] each. A mask is the same for all samples."""
    if dropout_p or (attn_mask is not None and attn_mask.ndim > 2):
        raise CannotFoldError("attention with dropout, or with a mask for each sample")
    return F.scaled_dot_product_attention(query, key, value, attn_mask, 0.0, is_causal, **options)


class SampleFold(Fold):
    """Activations [W b, ...]."""

    rules = {  # noqa: RUF012  (a table, never written to)
        F.linear: _stacked_linear,
        F.embedding: _stacked_embedding,
        F.layer_norm: _stacked_layer_norm,
        F.rms_norm: _stacked_rms_norm,
        F.scaled_dot_product_attention: _attention,
    }
    independent = ELEMENTWISE | {
        *(torch.arange, torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__, torch.Tensor.__neg__),
        *(
            torch.neg,
            torch.Tensor.neg,
            torch.Tensor.__sub__,
            torch.Tensor.sub,
            torch.sub,
            torch.Tensor.contiguous,
            torch.Tensor.to,
        ),
        *(F.softplus, F.leaky_relu, F.elu, torch.Tensor.expand),
    }
    reshaping = frozenset(
        {
            *(torch.Tensor.view, torch.Tensor.reshape, torch.reshape, torch.Tensor.flatten, torch.flatten),
            torch.Tensor.unflatten,
        }
    )
    moving = frozenset(
        {
            *(torch.Tensor.transpose, torch.transpose, torch.Tensor.unsqueeze, torch.Tensor.squeeze),
            *(torch.Tensor.split, torch.split, torch.Tensor.chunk, torch.chunk, torch.cat, torch.stack),
            *(torch.Tensor.unbind, torch.unbind),
        }
    )

    def other(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Those that leave the sample axis where it is, which the first axis of the result shows."""
        if func in self.reshaping or func in self.moving:
            result = func(*args, **kwargs)
            given = args[0] if isinstance(args[0], Tensor) else args[0][0]
            if all(len(r) == len(given) for r in ((result,) if isinstance(result, Tensor) else result)):
                return result
        raise CannotFoldError(name)


# -- the workers in the channel axis


def to_channels(x: Tensor) -> Tensor:
    """[W, b, C, ...] -> [b, W C, ...]."""
    return x.transpose(0, 1).flatten(1, 2)


def from_channels(x: Tensor, workers: int) -> Tensor:
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
    return F.conv2d(x, weight.flatten(0, 1), flat, stride, padding, dilation, weight.shape[0] * groups)


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x [b, W C, ...], weight and bias [W, C]."""
    if weight is None or bias is None:
        raise CannotFoldError("group norm without weights")
    return F.group_norm(x, weight.shape[0] * num_groups, weight.flatten(), bias.flatten(), eps)


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
    rows, columns = from_channels(x, weight.shape[0]), weight.transpose(1, 2)
    return to_channels(torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, columns))


def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The channel axis is the outermost in the flat vector, so the workers stay separate blocks."""
    if start_dim != 1:
        raise CannotFoldError("flattening of the batch axis, or within the image")
    return x.flatten(start_dim, end_dim)


class ChannelFold(Fold):
    """Activations [b, W C, ...]."""

    rules = {  # noqa: RUF012  (a table, never written to)
        F.conv2d: _conv2d,
        F.group_norm: _group_norm,
        F.batch_norm: _batch_norm,
        F.linear: _linear,
        torch.Tensor.flatten: _flatten,
        torch.flatten: _flatten,
    }
    independent = ELEMENTWISE | {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d}

    def other(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if func is F.pad:
            return self._pad(*args, **kwargs)
        raise CannotFoldError(name)

    def _pad(self, x: Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
        """Pads within the image, or each worker's channels separately."""
        if len(pad) <= 4:
            return F.pad(x, pad, mode, value)
        if len(pad) > 6 or mode != "constant":
            raise CannotFoldError("padding of the batch axis")
        per_worker = x.view(len(x), self.workers, -1, *x.shape[2:])
        return F.pad(per_worker, pad, mode, value).flatten(1, 2)
