"""One flat vector for all parameters of a module."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FlatLayout:
    """The position of each parameter of a module in the flat vector x of length J = ``dim``."""

    def __init__(self, module: nn.Module) -> None:
        self.shapes = {name: p.shape for name, p in module.named_parameters()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.dim = sum(self.sizes)

    def views(self, x: Tensor) -> dict[str, Tensor]:
        """x [..., J] -> parameters [..., *shape] that share its memory."""
        pieces = torch.split(x, self.sizes, dim=-1)
        return {
            name: piece.view(*x.shape[:-1], *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def flatten(self, tensors: list[Tensor], workers: int) -> Tensor:
        """Tensors [W, *shape] in the module's order -> [W, J]."""
        return torch.cat([t.reshape(workers, -1) for t in tensors], dim=1)
