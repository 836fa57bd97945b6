"""Photos of any size in files, decoded on demand."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from commexp.files import open_regular, reason
from commexp.problems.data import Data
from commexp.problems.datasets.stratified import validation_split

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

PARTS = ("train", "val")
GROUP = 1000  # files per task of a thread
#: statistics of ImageNet's training images, on the 0..1 scale
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TRIES = 10
LARGEST = 2**28  # bytes of a photo: an uncompressed one of 100 megapixels has about this size


class Photos:
    """m colour images of S x S pixels, S = ``image_size``, each read from its file on every access.

    ``labels``: int64 [m]. ``augment``: whether ``read`` with a seed takes a random window and flips at random.
    ``loaders``: the number of decoding processes, see feeds.Streamed. ``shape``: (m, 3, S, S). ``ndim``: 4.
    """

    ndim = 4

    def __init__(
        self, paths: Sequence[str], labels: Tensor, image_size: int, augment: bool = False, loaders: int = 4
    ) -> None:
        self._paths = np.array([os.fsencode(p) for p in paths])  # one block of memory, which loader processes share
        self.labels, self.image_size, self.augment, self.loaders = labels, image_size, augment, loaders
        self.shape = (len(paths), 3, image_size, image_size)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """The path of image ``index``."""
        return os.fsdecode(bytes(self._paths[index]))

    def read(self, index: int, seed: int | None) -> Tensor:
        """Image ``index``, uint8 [3, S, S]; bilinear, with antialiasing.

        Without a seed: resizes the shorter side to 256/224 S and takes the S x S centre. With a seed, if ``augment``:
        takes a random window, see ``window``, resizes it to S x S, and flips it with probability 1/2. Raises
        ValueError, with the file name, if the file is not an image.
        """
        from PIL import Image
        from torchvision.transforms.v2 import functional as F

        size = self.image_size
        try:
            with open_regular(self.path(index), LARGEST) as file, Image.open(file) as photo:
                image = photo.convert("RGB")
        except Exception as error:  # PIL does not catch the errors of its decoders
            wrong = f"{self.path(index)} cannot be read as an image ({reason(error)})"
            raise ValueError(f"dataset: {wrong}; get it anew") from error
        if self.augment and seed is not None:
            generator = torch.Generator().manual_seed(seed)
            top, left, height, width = window(generator, image.height, image.width)
            image = F.resized_crop(image, top, left, height, width, [size, size])
            if float(torch.rand((), generator=generator)) < 0.5:
                image = F.horizontal_flip(image)
        else:
            image = F.center_crop(F.resize(image, [round(size * 256 / 224)]), [size, size])
        pixels: Tensor = F.pil_to_tensor(image)
        return pixels


def window(generator: torch.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random window of an image: its share of the area is uniform in [0.08, 1], the
    logarithm of its aspect ratio uniform in +-log(4/3), its position uniform. If none of ten draws fits into the image:
    the largest centred window with such an aspect ratio.
    Source: Szegedy et al., arXiv 1409.4842, section 6; the bounds and the ten tries as in torchvision.
    """
    share, slant = torch.rand(TRIES, 2, generator=generator, dtype=torch.float64).unbind(1)
    area, ratio = (0.08 + 0.92 * share) * height * width, torch.exp((2 * slant - 1) * math.log(4 / 3))
    tall, wide = (area / ratio).sqrt().round().clamp(min=1), (area * ratio).sqrt().round().clamp(min=1)
    place = torch.rand(2, generator=generator, dtype=torch.float64)
    fits = ((tall <= height) & (wide <= width)).nonzero()
    if len(fits):
        h, w = int(tall[fits[0]]), int(wide[fits[0]])
        return int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1)), h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def check_fields(image_size: int, loaders: int) -> None:
    """Raises ValueError for an image size below 1 or a negative number of processes."""
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: must not be less than 1; 224 is usual")
    check_loaders(loaders)


def check_loaders(loaders: int) -> None:
    """Raises ValueError for a negative number of processes."""
    if loaders < 0:
        raise ValueError(f"loaders={loaders}: must not be negative; give processes such as 4, or 0 for none")


def identity(folder: Path) -> str:
    """Identifies the photos in ``folder``/{train,val}: 16 hex digits of BLAKE2b of their names and sizes; empty if a
    folder is missing or has no images. It does not read the pixels, which could take hours."""
    if any(_loop(folder / name) for name in PARTS):
        return ""  # from_folders raises the error
    try:
        return names_sum(folder, [part for name in PARTS for part, _ in _opened(folder / name).samples])
    except OSError:
        return ""


def _opened(folder: Path) -> ImageFolder:
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(folder))


def names_sum(folder: Path, paths: Sequence[str]) -> str:
    """16 hex digits of BLAKE2b of the names, from ``folder`` on, and sizes of the files. Raises OSError for a file
    whose size cannot be read."""
    pieces = [paths[i : i + GROUP] for i in range(0, len(paths), GROUP)]
    start = len(os.path.join(folder, ""))

    def described(piece: Sequence[str]) -> str:
        return "".join(f"{path[start:]}\0{os.stat(path).st_size}\n" for path in piece)

    whole = hashlib.blake2b(digest_size=8)
    with ThreadPoolExecutor(16) as several:  # threads, because each task waits for the disk or a file server
        for text in several.map(described, pieces):
            whole.update(text.encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def from_folders(
    key: str,
    root: str,
    folder: Path,
    image_size: int,
    augment: bool,
    loaders: int,
    remedy: str,
    digest: str,
    validation: int | None = None,
) -> Data:
    """The photos in ``folder``/{train,val}/<class>/*; classes are numbered in the order of the folder names in train.
    ``validation``: a number of photos in train that are not trained on and replace those in val.

    Raises FileNotFoundError ('``key``: ...; ``remedy``') if a folder is missing or has no images. Raises ValueError for
    a class in val that train lacks, for cyclic links, and if ``digest`` is given and differs from ``identity``.
    """
    read = []
    for part in PARTS:
        if not os.path.isdir(folder / part):
            raise FileNotFoundError(f"{key}: {folder / part} is missing; {remedy}")
        if loop := _loop(folder / part):
            raise ValueError(f"dataset.root={root}: {loop} leads back to a folder that it lies in; remove that link")
        try:
            read.append(_opened(folder / part))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{key}: {folder / part} is incomplete ({reason(error)}); {remedy}") from error
        except OSError as error:
            raise ValueError(f"{key}: {folder / part} cannot be read ({reason(error)}); {remedy}") from error
    train, val = read
    if digest and digest != names_sum(folder, [path for part in read for path, _ in part.samples]):
        raise ValueError(
            f"dataset.digest={digest}: the photos in {folder} have changed since; leave it out to take them as they are"
        )
    strange = sorted(set(val.classes) - set(train.classes))
    if strange:
        raise ValueError(
            f"dataset.root={root}: class {strange[0]} is in {folder / 'val'} but not in {folder / 'train'}; "
            "the folders in both must have the same names"
        )
    number = torch.tensor([train.class_to_idx[name] for name in val.classes])
    train_y, val_y = torch.tensor(train.targets), number[torch.tensor(val.targets)]
    paths = [[path for path, _ in part.samples] for part in read]
    if validation is not None:
        rows, held_out = validation_split(validation, train_y.numpy())
        paths = [[paths[0][i] for i in part] for part in (rows, held_out)]
        train_y, val_y = train_y[rows], train_y[held_out]
    train_x = Photos(paths[0], train_y, image_size, augment, loaders)
    test_x = Photos(paths[1], val_y, image_size, False, loaders)
    return Data(train_x, train_y, test_x, val_y, classes=len(train.classes), mean=MEAN, std=STD)


def _loop(folder: Path) -> str:
    """A link below ``folder`` to one of its own parents, which torchvision would follow for ever; empty if there is
    none."""
    stack = [(str(folder), frozenset([os.path.realpath(folder)]))]
    while stack:
        place, above = stack.pop()
        try:
            with os.scandir(place) as entries:
                inside = [entry for entry in entries if entry.is_dir()]
        except OSError:
            continue  # torchvision skips it as well
        for entry in inside:
            real = os.path.realpath(entry.path)
            if real in above:
                return entry.path
            stack.append((entry.path, above | {real}))
    return ""
