"""A small convolutional network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from commexp.problems.models.base import ImageModel
from commexp.problems.models.layers import conv3x3, norm_layer


@dataclass
class CNN(ImageModel):
    """``layers`` times 3 x 3 convolution, norm, ReLU, 2 x 2 max pool; then a linear head.

    ``width``: channels of the first convolution; each further one has twice as many. ``layers``: 1 to 4.
    ``norm``: batch or group; ``groups``: see ``layers.norm_layer``. Raises ValueError for images that are too
    small for the pools.
    """

    width: int = 32
    layers: int = 2
    norm: str = "group"
    groups: int = 8

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width={self.width}: must be positive; 32 is the default")
        if not 1 <= self.layers <= 4:
            raise ValueError(f"layers={self.layers}: each halves the image; give 1 to 4")
        norm_layer(self.norm, self.groups)

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        inputs, height, width = shape
        if min(height, width) < 2**self.layers:
            most = min(height, width).bit_length() - 1
            raise ValueError(
                f"model.layers={self.layers}: too many pools for images of {height} x {width}; give {most} or less"
            )
        norm, layers = norm_layer(self.norm, self.groups), nn.Sequential()
        for i in range(self.layers):
            outputs = self.width * 2**i
            layers.extend([conv3x3(inputs, outputs), norm(outputs), nn.ReLU(), nn.MaxPool2d(2)])
            inputs = outputs
        pixels = (height >> self.layers) * (width >> self.layers)
        return layers.extend([nn.Flatten(), nn.Linear(inputs * pixels, classes)])
