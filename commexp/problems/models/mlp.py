"""A multilayer perceptron on feature vectors or flattened images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn

from commexp.problems.base import Problem, ProblemContext
from commexp.problems.data import Data
from commexp.problems.models.base import ImageModel
from commexp.problems.module_problem import ModuleProblem

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


@dataclass
class MLP(ImageModel):
    """Linear layers with ``activation``, relu or tanh, between them. ``hidden``: the widths of the layers between
    samples and logits; none gives softmax regression. Samples may be of any shape."""

    hidden: list[int] = field(default_factory=lambda: [128])
    activation: str = "relu"

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden={list(self.hidden)}: widths must be positive; [128] is the default")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation}: unknown; give {' or '.join(ACTIVATIONS)}")

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        shape, classes = tuple(data.train_x.shape[1:]), data.classes
        if classes is None:
            raise ValueError("model=MLP: needs labelled samples; give dataset=digits, or the dataset's own model")
        return ModuleProblem(lambda: self.module(shape, classes), data, context)

    def module(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        layers, inputs = nn.Sequential(nn.Flatten()), math.prod(shape)
        for width in self.hidden:
            layers.extend([nn.Linear(inputs, width), ACTIVATIONS[self.activation]()])
            inputs = width
        return layers.append(nn.Linear(inputs, classes))
