"""ImageNet (ILSVRC 2012) from files on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.files import place
from commexp.problems.datasets.photos import check_fields, from_folders, identity
from commexp.problems.datasets.stratified import check_validation


@dataclass
class ImageNet(Dataset):
    """1,281,167 training and 50,000 validation photos of 1,000 classes; other photos in such folders work as well.

    ``root``: the folder of train/<class>/*.JPEG and val/<class>/*.JPEG. ``image_size``, ``augment``, ``loaders``: see
    Photos. ``digest``: identifies the photos by their names and sizes; filled in if they exist. ``validation``: a
    number of training photos that are not trained on and replace the validation photos as test set, so that tuning does
    not use it. Raises FileNotFoundError if a folder is missing or empty, ValueError for a class in val that train
    lacks, or for a wrong digest.
    Source: Russakovsky et al., arXiv 1409.0575.
    """

    root: str = field(default="data/imagenet", metadata={"location": True})
    image_size: int = 224
    augment: bool = True
    loaders: int = field(default=4, metadata={"location": True})  # changes nothing but the time
    digest: str = ""
    validation: int | None = field(default=None, metadata={"added": True})

    def __post_init__(self) -> None:
        check_fields(self.image_size, self.loaders)
        check_validation(self.validation)
        self.digest = self.digest or identity(place(self.root))

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        remedy = (
            f"put the photos into {self.root}/train/<class>/ and {self.root}/val/<class>/ (from https://image-net.org)"
        )
        parts = self.image_size, self.augment, self.loaders
        last = remedy, self.digest, self.validation
        return from_folders("dataset=imagenet", self.root, place(self.root), *parts, *last)
