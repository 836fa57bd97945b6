"""Labelled images of one size that fit into memory."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from commexp.problems.augment import Augment
from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.stratified import pick, validation_split, without


@dataclass
class LabelledImages(Dataset):
    """``samples``, ``test_samples``: the numbers of training and test images to use, stratified by class and the same
    for every seed; null for all. ``validation``: a number of training images that are not trained on and replace the
    test set, so that tuning does not use it: others than ``samples``, or, if that is null, all others are trained on.
    ``augment``: augmentation of training batches. Raises ValueError for numbers of samples below 1.
    """

    samples: int | None = None
    test_samples: int | None = None
    validation: int | None = None
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        for name in ("samples", "test_samples", "validation"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must not be less than 1; give a number of images, or null for all")

    def chosen(self, train_y: Tensor, test_y: Tensor) -> tuple[Tensor, Tensor]:
        """Ascending indices of the training images that are trained on, and of the test set: of test images, or, with
        ``validation``, of training images."""
        if self.validation is not None and self.samples is None:
            kept, held_out = validation_split(self.validation, train_y.numpy())
            return torch.from_numpy(kept), torch.from_numpy(held_out)
        train = pick("samples", self.samples, train_y)
        if self.validation is None:
            return train, pick("test_samples", self.test_samples, test_y)
        rest = without(train, len(train_y))
        return train, rest[pick("validation", self.validation, train_y[rest])]


@dataclass
class ImageSet(LabelledImages):
    """Each channel is scaled to mean 0 and variance 1 over all training images.

    ``root``: the folder of the files. ``download``: whether to download missing files.
    """

    root: str = field(default="data", metadata={"location": True})
    download: bool = field(default=False, metadata={"location": True})

    classes: ClassVar[int] = 10

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("root=: empty; give a folder such as data")
        super().__post_init__()

    @abstractmethod
    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training images uint8 [m, C, H, W] and labels int64 [m], test images and labels."""

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        train_x, train_y, test_x, test_y = self.read()
        mean, std = statistics(train_x)
        train, test = self.chosen(train_y, test_y)
        if self.validation is not None:
            test_x, test_y = train_x, train_y
        return Data(
            train_x[train],
            train_y[train],
            test_x[test],
            test_y[test],
            classes=self.classes,
            mean=mean.to(dtype),
            std=std.to(dtype),
            augment=self.augment,
        )


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 images [m, C, H, W] on the 0..1 scale, float64 [C] each;
    exact, because they are computed from counts of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ values
    return mean, (shares * (values - mean.unsqueeze(1)) ** 2).sum(1).sqrt()
