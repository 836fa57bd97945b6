"""CIFAR-10 from files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from commexp.problems.datasets.cifar import read
from commexp.problems.datasets.images import ImageSet


@dataclass
class CIFAR10(ImageSet):
    """50,000 training and 10,000 test images, 32 x 32 colour, of 10 classes of things and animals.

    ``root``: the folder in which cifar-10-batches-py lies, or the archive cifar-10-python.tar.gz that holds it.
    Other fields: see ImageSet. Raises FileNotFoundError where neither is there, ValueError where a file's MD5 sum is
    not the published one. Source: Krizhevsky, Learning multiple layers of features from tiny images (2009); sums as
    torchvision lists them.
    """

    classes: ClassVar[int] = 10

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from torchvision import datasets as published

        return read("dataset=cifar10", self.root, self.download, published.CIFAR10)
