"""The data of a problem, and the interface of a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from commexp.problems.augment import Augment
from commexp.problems.items import Items
from commexp.problems.ratings.data import Ratings
from commexp.problems.sparse_rows import SparseRows
from commexp.problems.tokens import Tokens


@dataclass
class Data:
    """Samples along the first axis. ``shards``: each worker's sample indices, if the dataset itself defines the split.

    ``train_x``, ``test_x``: floats [m, ...], already normalised; or uint8 images [m, C, H, W], which are normalised to
    (x / 255 - mean) / std by ``mean`` and ``std`` [C], on the 0..1 scale; or Photos, normalised in the same way; or
    SparseRows [m, d], Ratings, Tokens or Items, which are not normalised. For floats mean and std describe the
    normalisation, if known. ``third_class``: the line of the user's file with the first sample of a third class, for
    error messages of models with two classes. ``source``: int64 [m], the number of the file, writer, ... that each
    sample comes from, if known. ``augment``: the augmentation of batches of image tensors [m, C, H, W]; Photos have
    their own. Raises ValueError for uint8 images or Photos without mean and std, and for ``augment`` with anything but
    image tensors.
    """

    train_x: Any  # Tensor, Photos, SparseRows, Ratings, Tokens or Items; models check its ndim and shape
    train_y: Tensor
    test_x: Any = None
    test_y: Tensor | None = None
    classes: int | None = None
    shards: list[Tensor] | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    augment: Augment | None = None
    third_class: str = ""
    source: Tensor | None = None

    def __post_init__(self) -> None:
        tensor = isinstance(self.train_x, Tensor)
        others = SparseRows | Ratings | Tokens | Items
        raw = self.train_x.dtype == torch.uint8 if tensor else not isinstance(self.train_x, others)
        if raw and (self.mean is None or self.std is None):
            raise ValueError("train_x: uint8 images or Photos without mean and std; give both, [C] each")
        if self.augment is not None and not (tensor and self.train_x.ndim == 4):
            raise ValueError("augment: acts on image tensors [m, C, H, W] alone; leave it out")

    def source_counts(self, shards: Sequence[Tensor]) -> list[tuple[int, int, int]]:
        """Of each worker, each of its sources, and how many samples of that one it has; none if there are no
        sources."""
        found = []
        for n, rows in enumerate(shards if self.source is not None else ()):
            assert self.source is not None
            sources, counts = torch.unique(self.source[rows], return_counts=True)
            found += [(n, s, m) for s, m in zip(sources.tolist(), counts.tolist(), strict=True)]
        return found

    def class_counts(self, shards: Sequence[Tensor]) -> Tensor | None:
        """How many samples of each class each of the N ``shards`` has, [N, classes]; None if there are no classes."""
        if self.classes is None:
            return None
        return torch.stack([torch.bincount(self.train_y[rows], minlength=self.classes) for rows in shards])

    @property
    def vectors(self) -> bool:
        """Whether samples are feature vectors, dense or sparse."""
        return self.train_x.ndim == 2 and not isinstance(self.train_x, Tokens | Items)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of one sample; None if samples are not images."""
        if self.train_x.ndim != 4 or isinstance(self.train_x, Items):
            return None
        c, h, w = self.train_x.shape[1:]
        return int(c), int(h), int(w)


class Dataset(ABC):
    """A dataclass whose fields describe the data; ``load`` reads or generates them."""

    @property
    def called(self) -> str:
        """What runs are named after, if that is not the component's own name."""
        return ""

    def resolve(self) -> None:
        """Imports what the fields name; called before ``load`` where the config is the user's own. Raises ValueError
        for what is not there."""
        return

    @abstractmethod
    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        """Raises FileNotFoundError, with the expected path and where to get the file, and ValueError for a damaged
        file."""
