"""Wide residual networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from commexp.problems.models.base import ImageModel
from commexp.problems.models.layers import Norm, conv1x1, conv3x3, he_normal, norm_layer


class WideBlock(nn.Module):
    """x' + conv(relu(norm(conv(y)))) with y = relu(norm(x)); x' is x, or the 1 x 1 convolution of y where the shape
    changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm2 = norm(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.shortcut = None if inputs == outputs and stride == 1 else conv1x1(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(y)
        branch: Tensor = self.conv2(F.relu(self.norm2(self.conv1(y))))
        return shortcut + branch


@dataclass
class WideResNet(ImageModel):
    """WRN-d-k, d = 6n + 4: a 3 x 3 stem of 16 channels, three stages of n pre-activated blocks with 16k, 32k, 64k
    channels, the second and third of which halve the image; norm, ReLU, global average, linear head. No dropout.

    ``depth``: d. ``width``: k. ``norm``: batch or group. ``groups``: see ``layers.norm_layer``.
    Source: Zagoruyko and Komodakis, arXiv 1605.07146, table 1, B(3,3).
    """

    depth: int = 16
    width: int = 8
    norm: str = "batch"
    groups: int = 8

    def __post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth={self.depth}: must be 6n + 4; give 10, 16, 22, 28, 34 or 40")
        if self.width < 1:
            raise ValueError(f"width={self.width}: must be 1 or more; 8 and 10 are usual")
        norm_layer(self.norm, self.groups)

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        norm = norm_layer(self.norm, self.groups)
        inputs, layers = 16, nn.Sequential(conv3x3(shape[0], 16))
        for stage in range(3):
            outputs = 16 * self.width * 2**stage
            for block in range((self.depth - 4) // 6):
                layers.append(WideBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1, norm))
                inputs = outputs
        tail = norm(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)
        return he_normal(layers.extend(tail))
