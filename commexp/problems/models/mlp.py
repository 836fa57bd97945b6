"""A multilayer perceptron on flattened images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn

from commexp.problems.models.base import ImageModel


@dataclass
class MLP(ImageModel):
    """Linear layers with ReLUs between them. ``hidden``: the widths of the layers between image and logits; none
    gives softmax regression."""

    hidden: list[int] = field(default_factory=lambda: [128])

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden={list(self.hidden)}: widths must be positive; [128] is the default")

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        layers, inputs = nn.Sequential(nn.Flatten()), math.prod(shape)
        for width in self.hidden:
            layers.extend([nn.Linear(inputs, width), nn.ReLU()])
            inputs = width
        return layers.append(nn.Linear(inputs, classes))
