"""Fashion-MNIST from files on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from commexp.problems.datasets.files import place
from commexp.problems.datasets.idx import read
from commexp.problems.datasets.images import ImageSet

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
#: MD5 sums of what the published files hold: Debian packs it anew, with another date in the header
UNPACKED = {
    "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
}


@dataclass
class FashionMNIST(ImageSet):
    """60,000 training and 10,000 test images, 28 x 28 grey, of ten classes of clothing.

    ``root``: the folder of the four original ``*-ubyte.gz`` files; torchvision's FashionMNIST/raw in it is tried next,
    then where Debian's package puts them. Other fields: see ImageSet. Raises FileNotFoundError where a file is in none
    of these, ValueError where its MD5 sum is not the published one.
    Source: Xiao, Rasul and Vollgraf, arXiv 1708.07747; sums as torchvision lists them.
    """

    root: str = field(default="data/fashion-mnist", metadata={"location": True})

    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from torchvision.datasets import FashionMNIST as Published

        places = [place(self.root), place(self.root, "FashionMNIST/raw"), DEBIAN]
        mirrors = Published.mirrors if self.download else None
        otherwise = "or install Debian's package dataset-fashion-mnist, or give dataset.download=true"
        return read("dataset=fashion_mnist", self.root, places, Published.resources, mirrors, otherwise, UNPACKED)
