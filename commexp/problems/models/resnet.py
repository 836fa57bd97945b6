"""Residual networks as torchvision builds them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from commexp.problems.models.base import ImageModel
from commexp.problems.models.layers import he_normal, norm_layer

DEPTHS = (18, 34, 50, 101, 152)


@dataclass
class ResNet(ImageModel):
    """ResNet-18, -34 (blocks of two 3 x 3 convolutions), -50, -101, -152 (bottlenecks; stride in the 3 x 3 one).

    ``depth``: 18, 34, 50, 101 or 152. ``stem``: imagenet is a 7 x 7 convolution of stride 2 and a max pool, the
    image shrinks 32-fold; cifar is a 3 x 3 one of stride 1 and no pool, it shrinks 8-fold. ``norm``: batch or group.
    ``groups``: see ``layers.norm_layer``; unused with norm=batch.
    Source: He et al., arXiv 1512.03385, table 1; group norm: Wu and He, arXiv 1803.08494.
    """

    depth: int = 18
    stem: str = "cifar"
    norm: str = "batch"
    groups: int = 32

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ValueError(f"depth={self.depth}: no such ResNet; give 18, 34, 50, 101 or 152")
        if self.stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem={self.stem}: unknown; give cifar for small images or imagenet for large ones")
        norm_layer(self.norm, self.groups)

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        import torchvision  # takes a second

        make = getattr(torchvision.models, f"resnet{self.depth}")
        module: nn.Module = make(num_classes=classes, norm_layer=norm_layer(self.norm, self.groups))
        if self.stem == "cifar":
            module.conv1 = he_normal(nn.Conv2d(shape[0], 64, 3, 1, 1, bias=False))
            module.maxpool = nn.Identity()
        elif shape[0] != 3:
            module.conv1 = he_normal(nn.Conv2d(shape[0], 64, 7, 2, 3, bias=False))
        return module
