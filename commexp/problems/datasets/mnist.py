"""MNIST from files on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from commexp.problems.datasets.files import place
from commexp.problems.datasets.idx import read
from commexp.problems.datasets.images import ImageSet


@dataclass
class MNIST(ImageSet):
    """60,000 training and 10,000 test images, 28 x 28 grey, of handwritten digits.

    ``root``: the folder of the four original ``*-ubyte.gz`` files; torchvision's MNIST/raw in it is tried next.
    Other fields: see ImageSet. Raises FileNotFoundError where a file is in neither, ValueError where its MD5 sum is
    not the published one. Source: LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86 (1998); sums as torchvision lists
    them.
    """

    root: str = field(default="data/mnist", metadata={"location": True})

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from torchvision import datasets as published

        places = [place(self.root), place(self.root, "MNIST/raw")]
        mirrors = published.MNIST.mirrors if self.download else None
        return read(
            "dataset=mnist", self.root, places, published.MNIST.resources, mirrors, "or give dataset.download=true"
        )
