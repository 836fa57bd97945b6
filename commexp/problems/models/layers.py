"""Shared layers of the convolutional models: norm, initialisation, shortcut without parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]  # channels -> layer


def norm_layer(norm: str, groups: int) -> Norm:
    """``norm``: batch (statistics of a worker's batch), or group (of a single sample). ``groups``: the largest number
    of groups; the actual one is the largest divisor of the channels up to it. Raises ValueError for other values.
    """
    if groups < 1:
        raise ValueError(f"groups={groups}: must be 1 or more; 32 and 8 are usual")
    if norm == "batch":
        return nn.BatchNorm2d
    if norm == "group":
        return lambda channels: nn.GroupNorm(_divisor(channels, groups), channels)
    raise ValueError(f"norm={norm}: unknown; give batch or group")


def _divisor(channels: int, at_most: int) -> int:
    return next(g for g in range(min(at_most, channels), 0, -1) if channels % g == 0)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Keeps the image's size, or halves it (rounded up) with stride 2. No bias, because a norm precedes or follows
    it."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def he_normal(module: nn.Module) -> nn.Module:
    """Draws every convolution anew from N(0, 2 / (k^2 outputs)), which preserves the variance of gradients through
    ReLUs; other layers do not change. Source: He et al., arXiv 1502.01852, section 2.2."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module


class PaddedShortcut(nn.Module):
    """x [b, inputs, H, W] -> [b, outputs, H', W']: means over ``window`` x ``window`` pixels, ``stride`` apart,
    followed by channels of zeros. Window 1 is plain subsampling. H' and W' are rounded up, as ``conv3x3`` does."""

    def __init__(self, inputs: int, outputs: int, stride: int, window: int) -> None:
        super().__init__()
        self.extra, self.stride, self.window = outputs - inputs, stride, window

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, self.window, self.stride, ceil_mode=True)
        return F.pad(x, (0, 0, 0, 0, 0, self.extra)) if self.extra else x
