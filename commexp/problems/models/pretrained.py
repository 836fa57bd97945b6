"""A new linear head on a network with pretrained ImageNet weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commexp.files import read_bytes, reason
from commexp.problems.base import Problem, ProblemContext
from commexp.problems.data import Data
from commexp.problems.feeds import make_feed
from commexp.problems.models.base import Model
from commexp.problems.module_problem import ModuleProblem

#: the attribute of torchvision's module that is the classifier, and its replacement, which outputs the pooled features
HEADS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "resnet18": ("fc", nn.Identity),
    "resnet50": ("fc", nn.Identity),
    "resnet152": ("fc", nn.Identity),
    "mobilenet_v2": ("classifier", nn.Identity),
    "efficientnet_b0": ("classifier", nn.Identity),
    "shufflenet_v2_x1_0": ("fc", nn.Identity),
    "squeezenet1_0": ("classifier", lambda: nn.AdaptiveAvgPool2d(1)),
}
SMALL, ENLARGED = 64, 224  # pixels: images with a side below the first are resized to the second
LARGEST = 2**30  # bytes of a file of weights: resnet152's has 242 million
CHUNK = 64  # images that pass through the network at once


@dataclass
class Pretrained(Model):
    """logits = A h(image) + c. h is the network up to its global average pooling, frozen, with batch norms in
    evaluation mode, so the features h [d] of each image are computed once; A [classes, d] and c are trained.

    ``arch``: resnet18, resnet50, resnet152, mobilenet_v2, efficientnet_b0, shufflenet_v2_x1_0 or squeezenet1_0, with
    torchvision's first published weights (IMAGENET1K_V1). ``weights_dir``: the folder of their files; empty is
    torch.hub's own. ``download``: fetch a missing file into it. Images below 64 pixels are resized to 224 (bilinear,
    antialiased), grey ones repeated to three channels; they are not augmented.
    Raises FileNotFoundError for a missing file that cannot be downloaded, ValueError for a damaged one (its SHA-256
    sum must begin with the digits in its name) and for data that are not labelled grey or colour images.
    """

    arch: str = "resnet18"
    weights_dir: str = field(default="", metadata={"location": True})
    download: bool = field(default=False, metadata={"location": True})

    def __post_init__(self) -> None:
        if self.arch not in HEADS:
            raise ValueError(f"arch={self.arch}: unknown; give one of {', '.join(HEADS)}")

    def problem(self, data: Data, context: ProblemContext) -> Problem:
        shape, classes = data.image_shape, data.classes
        if classes is None or shape is None or data.test_x is None:
            raise ValueError("model=Pretrained: needs labelled images and a test set; give dataset=imagenette")
        if shape[0] not in (1, 3):
            raise ValueError(f"model=Pretrained: images of {shape[0]} channels; give grey or colour ones")
        backbone, feed = self.backbone().to(context.device, context.dtype), make_feed(data, context)
        train_x, test_x = features(backbone, feed.train(None)), features(backbone, feed.test())
        vectors = Data(train_x, data.train_y, test_x, data.test_y, classes, data.shards)
        return ModuleProblem(lambda: nn.Linear(train_x.shape[1], classes), vectors, context)

    def backbone(self) -> nn.Module:
        """Images [b, 3, H, W] -> features [b, d], frozen, in evaluation mode."""
        import torchvision  # takes a second

        state = self._weights()
        with torch.device("meta"):  # skips the initialisation, whose values are replaced below
            module: nn.Module = torchvision.models.get_model(self.arch, weights=None)
        module.load_state_dict(state, assign=True)
        name, replacement = HEADS[self.arch]
        setattr(module, name, replacement())
        return module.requires_grad_(False).eval()

    def _weights(self) -> dict[str, Any]:
        import torchvision

        weights = torchvision.models.get_model_weights(self.arch).IMAGENET1K_V1
        own = os.path.expanduser(self.weights_dir)
        folder = Path(own) if own else Path(torch.hub.get_dir(), "checkpoints")
        path = folder / Path(urlsplit(weights.url).path).name
        if os.path.isfile(path):
            digits = path.stem.rpartition("-")[2]
            try:
                content = read_bytes(path, LARGEST)
            except OSError as error:
                raise ValueError(
                    f"model.weights_dir={self.weights_dir}: {path} cannot be read ({reason(error)}); get it anew"
                ) from error
            if not hashlib.sha256(content).hexdigest().startswith(digits):
                raise ValueError(
                    f"model.weights_dir={self.weights_dir}: {path} is damaged (its SHA-256 sum does not begin with "
                    f"{digits}); remove it and get it anew"
                )
        elif not self.download:
            raise FileNotFoundError(
                f"model.arch={self.arch}: {path.name} is not in {folder}; give model.download=true or put it there"
            )
        try:
            state: dict[str, Any] = weights.get_state_dict(
                model_dir=str(folder), map_location="cpu", check_hash=True, weights_only=True
            )
        except OSError as error:
            raise FileNotFoundError(
                f"model.download=true: {weights.url} cannot be fetched into {folder} ({' '.join(str(error).split())}); "
                "put it there by hand"
            ) from error
        return state


@torch.no_grad()
def features(backbone: nn.Module, chunks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Chunks of images [c, C, H, W] and targets -> the features [m, d] of all images."""
    return torch.cat([backbone(prepared(few)) for images, _ in chunks for few in torch.split(images, CHUNK)])


def prepared(images: Tensor) -> Tensor:
    """Resizes small images and repeats grey ones: [c, 1 or 3, H, W] -> [c, 3, H', W']."""
    if min(images.shape[-2:]) < SMALL:
        images = F.interpolate(images, (ENLARGED, ENLARGED), mode="bilinear", antialias=True)
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
