"""A small residual network for small images."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from commexp.problems.models.base import ImageModel


class SmallBlock(nn.Module):
    """relu(x' + norm(conv(relu(norm(conv(x)))))); x' is x, or its 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(min(8, outputs), outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(min(8, outputs), outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y)))


@dataclass
class ResNetSmall(ImageModel):
    """A 3 x 3 stem, then one residual block per stage; each stage after the first halves the image and doubles the
    channels; global average, linear head. GroupNorm, so no statistics are shared between samples or workers.
    ``width``: channels of the first stage, a multiple of 8. ``stages``: number of stages.
    """

    width: int = 16
    stages: int = 2

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width={self.width}: must be a multiple of 8; 16 is the default")
        if not 1 <= self.stages <= 5:
            raise ValueError(f"stages={self.stages}: each halves the image; give 1 to 5")

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        widths = [self.width * 2**s for s in range(self.stages)]
        stem = nn.Conv2d(shape[0], self.width, 3, 1, 1, bias=False), nn.GroupNorm(8, self.width), nn.ReLU()
        blocks = [SmallBlock(widths[max(0, s - 1)], widths[s], 1 if s == 0 else 2) for s in range(self.stages)]
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))
