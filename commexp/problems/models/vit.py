"""Vision transformers as torchvision builds them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from commexp.problems.models.base import ImageModel


@dataclass
class ViT(ImageModel):
    """Square patches projected to vectors, a class token, learnt position embeddings, pre-norm encoder layers, and a
    linear head on the class token, initialised with zeros. No dropout: a step is a function of x and the batch only.

    ``image_size``: side of the images in pixels. ``patch``: side of a patch, a divisor of image_size. ``layers``:
    number of encoder layers. ``heads``: of attention, a divisor of ``hidden``, the dimension of a token. ``mlp``: width
    of the feed-forward layer. ViT-B/16 is 224, 16, 12, 12, 768, 3072. Raises ValueError for images of another size.
    Source: Dosovitskiy et al., arXiv 2010.11929, table 1.
    """

    image_size: int = 32
    patch: int = 4
    layers: int = 6
    heads: int = 4
    hidden: int = 256
    mlp: int = 512

    def __post_init__(self) -> None:
        for name in ("image_size", "patch", "layers", "heads", "hidden", "mlp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive; {getattr(ViT, name)} is the default")
        if self.image_size % self.patch:
            raise ValueError(f"patch={self.patch}: must divide image_size={self.image_size}; give one of its divisors")
        if self.hidden % self.heads:
            raise ValueError(f"heads={self.heads}: must divide hidden={self.hidden}; give one of its divisors")

    def module(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        from torchvision.models import VisionTransformer  # takes a second

        channels, height, width = shape
        if height != width:
            raise ValueError(f"model=ViT: the images are {height} x {width}, not square; give another model")
        if height != self.image_size:
            raise ValueError(
                f"model.image_size={self.image_size}: the images are {height} x {width}; give model.image_size={height}"
            )
        module: nn.Module = VisionTransformer(
            self.image_size, self.patch, self.layers, self.heads, self.hidden, self.mlp, num_classes=classes
        )
        if channels != 3:
            project = nn.Conv2d(channels, self.hidden, self.patch, self.patch)
            nn.init.trunc_normal_(project.weight, std=math.sqrt(1 / (channels * self.patch**2)))
            nn.init.zeros_(project.bias)  # type: ignore[arg-type]
            module.conv_proj = project
        _drop_dropout(module)
        return module


def _drop_dropout(module: nn.Module) -> None:
    """Removes dropout layers: torch.func.vmap refuses them even with a rate of zero, because they draw random
    numbers."""
    for name, child in module.named_children():
        if isinstance(child, nn.Dropout):
            setattr(module, name, nn.Identity())
        else:
            _drop_dropout(child)
