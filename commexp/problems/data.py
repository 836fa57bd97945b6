"""What a dataset hands over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from commexp.problems.augment import Augment
from commexp.problems.ratings.data import Ratings
from commexp.problems.sparse_rows import SparseRows


@dataclass
class Data:
    """Samples along the first axis. ``shards``: each worker's sample indices where the data come already split.

    ``train_x``, ``test_x``: floats [m, ...], already normalised; or uint8 images [m, C, H, W], which are normalised to
    (x / 255 - mean) / std by ``mean`` and ``std`` [C], on the 0..1 scale; or Photos, normalised in the same way; or
    SparseRows [m, d] or Ratings, which are taken as they are. For floats mean and std only say how they were
    normalised, if known.
    ``third_class``: in which line of the user's file there first is a third label, for models that take two.
    ``augment``: what batches of tensors [m, C, H, W] go through; Photos have their own.
    Raises ValueError for uint8 or Photos without mean and std, and for ``augment`` of what is no image tensor.
    """

    train_x: Any  # Tensor, Photos, SparseRows or Ratings; a model that needs one of them looks at ndim and shape
    train_y: Tensor
    test_x: Any = None
    test_y: Tensor | None = None
    classes: int | None = None
    shards: list[Tensor] | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    augment: Augment | None = None
    third_class: str = ""

    def __post_init__(self) -> None:
        tensor = isinstance(self.train_x, Tensor)
        raw = self.train_x.dtype == torch.uint8 if tensor else not isinstance(self.train_x, SparseRows | Ratings)
        if raw and (self.mean is None or self.std is None):
            raise ValueError("train_x: uint8 images or Photos without mean and std; give both, [C] each")
        if self.augment is not None and not (tensor and self.train_x.ndim == 4):
            raise ValueError("augment: acts on image tensors [m, C, H, W] alone; leave it out")

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of one sample, or None where samples are not images."""
        if self.train_x.ndim != 4:
            return None
        c, h, w = self.train_x.shape[1:]
        return int(c), int(h), int(w)


class Dataset(ABC):
    """A dataclass whose fields say which data; ``load`` reads or makes them."""

    @abstractmethod
    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        """Raises FileNotFoundError, saying where the file belongs and how to get it, and ValueError for a damaged
        file."""
