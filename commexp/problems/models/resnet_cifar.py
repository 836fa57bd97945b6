"""The thin residual networks of the CIFAR-10 experiments."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from commexp.problems.models.base import ImageModel
from commexp.problems.models.layers import Norm, PaddedShortcut, conv3x3, he_normal, norm_layer

DEPTHS = (20, 32, 44, 56, 110)
WIDTHS = (16, 32, 64)


class CifarBlock(nn.Module):
    """relu(x' + norm(conv(relu(norm(conv(x)))))); x' is x, subsampled and padded with zero channels where the shape
    changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm1 = norm(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.norm2 = norm(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else PaddedShortcut(inputs, outputs, stride, window=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y)))


@dataclass
class ResNetCifar(ImageModel):
    """ResNet-(6n + 2): a 3 x 3 stem, three stages of n blocks with 16, 32, 64 channels, the second and third of which
    halve the image; shortcuts without parameters (option A); global average, linear head.

    ``depth``: 20, 32, 44, 56 or 110. ``norm``: batch or group. ``groups``: see ``layers.norm_layer``.
    Source: He et al., arXiv 1512.03385, section 4.2.
    """

    depth: int = 20
    norm: str = "batch"
    groups: int = 8

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ValueError(f"depth={self.depth}: must be one of 6n + 2; give 20, 32, 44, 56 or 110")
        norm_layer(self.norm, self.groups)

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        norm = norm_layer(self.norm, self.groups)
        layers: list[nn.Module] = [conv3x3(shape[0], WIDTHS[0]), norm(WIDTHS[0]), nn.ReLU()]
        inputs = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for block in range((self.depth - 2) // 6):
                layers.append(CifarBlock(inputs, width, 2 if stage > 0 and block == 0 else 1, norm))
                inputs = width
        return he_normal(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], classes)))
