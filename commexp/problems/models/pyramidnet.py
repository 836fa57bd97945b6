"""Pyramidal residual networks, whose width grows with every block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from commexp.problems.models.base import ImageModel
from commexp.problems.models.layers import Norm, PaddedShortcut, conv1x1, conv3x3, he_normal, norm_layer

EXPANSION = 4  # a bottleneck's outputs per channel of its 3 x 3 convolution


class PyramidBlock(nn.Module):
    """x' + branch(x), no ReLU after the sum nor before the first convolution; x' is x, averaged over 2 x 2 pixels
    where the stride is 2 and padded with zero channels where the block widens."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, norm: Norm) -> None:
        super().__init__()
        if bottleneck:
            self.outputs = EXPANSION * width
            self.branch = nn.Sequential(
                norm(inputs), conv1x1(inputs, width),
                norm(width), nn.ReLU(), conv3x3(width, width, stride),
                norm(width), nn.ReLU(), conv1x1(width, self.outputs),
                norm(self.outputs),
            )  # fmt: skip
        else:
            self.outputs = width
            self.branch = nn.Sequential(
                norm(inputs), conv3x3(inputs, width, stride),
                norm(width), nn.ReLU(), conv3x3(width, width),
                norm(width),
            )  # fmt: skip
        self.shortcut = PaddedShortcut(inputs, self.outputs, stride, window=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shortcut(x) + self.branch(x)
        return y


@dataclass
class PyramidNet(ImageModel):
    """PyramidNet-depth(alpha): a 3 x 3 stem of 16 channels, then three stages of n blocks; block i of all 3n has
    floor(16 + alpha i / 3n) channels (four times as many leave a bottleneck); the second and third stage halve the
    image; norm, ReLU, global average, linear head.

    ``depth``: 6n + 2, or 9n + 2 with bottlenecks. ``alpha``: channels that the last block has above 16.
    ``bottleneck``: 1 x 1, 3 x 3, 1 x 1 convolutions instead of two 3 x 3 ones. ``norm``: batch or group; ``groups``:
    see ``layers.norm_layer`` (many of the widths have few divisors).
    Source: Han, Kim and Kim, arXiv 1610.02915, equation 2 (its floor taken of the running sum, so that the last width
    is 16 + alpha), figure 6d, section 3.
    """

    depth: int = 110
    alpha: int = 270
    bottleneck: bool = False
    norm: str = "batch"
    groups: int = 8

    def __post_init__(self) -> None:
        per_stage, form, example = (9, "9n + 2", 164) if self.bottleneck else (6, "6n + 2", 110)
        if self.depth < 2 + per_stage or self.depth % per_stage != 2:
            raise ValueError(f"depth={self.depth}: must be {form} for bottleneck={self.bottleneck}; give {example}")
        if self.alpha < 0:
            raise ValueError(f"alpha={self.alpha}: widths only grow; give 0 or more, such as 84 or 270")
        norm_layer(self.norm, self.groups)

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        norm, per_stage = norm_layer(self.norm, self.groups), (self.depth - 2) // (9 if self.bottleneck else 6)
        layers, inputs, blocks = nn.Sequential(conv3x3(shape[0], 16), norm(16)), 16, 3 * per_stage
        for i in range(1, blocks + 1):
            stride = 2 if i in (per_stage + 1, 2 * per_stage + 1) else 1
            block = PyramidBlock(inputs, 16 + self.alpha * i // blocks, stride, self.bottleneck, norm)
            layers.append(block)
            inputs = block.outputs
        tail = norm(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)
        return he_normal(layers.extend(tail))
