"""A folder of images, with a subfolder for each class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from commexp.files import open_regular
from commexp.problems.augment import Augment
from commexp.problems.data import Data
from commexp.problems.datasets.files import place
from commexp.problems.datasets.images import LabelledImages, statistics
from commexp.problems.datasets.photos import MEAN, STD, Photos, check_loaders, names_sum
from commexp.problems.datasets.stratified import validation_split, without

CONTENTS = 2**30  # bytes of files whose contents the digest covers
WANTED = "a folder with a subfolder of images for each class, or with such folders train and val (or test)"

Listed = tuple[list[str], Tensor]  # paths of images, and their classes, int64 [m]


@dataclass
class Folder(LabelledImages):
    """Images in any format that Pillow reads, which the suffix tells, in colour.

    ``root``: the folder, with <class>/*, at any depth; or with train/<class>/* and a test set in test/<class>/* or,
    where that is missing, in val/<class>/*. Classes are numbered in the order of their names; hidden files are left
    out. An image's source, such as its writer, is the folder in <class> in which it lies, <class>/<source>/*, if some
    images lie in such folders; a source may have images of several classes. ``test``: without a test set, the share of
    each class that is held out, the same for every seed. ``size``: S; the shorter side of an image is resized to
    256/224 S, and the S x S centre is taken.

    Images are decoded once, and each channel is scaled to mean 0 and variance 1 over the training images that are used,
    if all of them take at most ``memory`` GB. Otherwise they stay in the files, ``loaders`` processes decode them when
    they are needed, they are scaled by the statistics of ImageNet, and they take no ``augment``.

    ``digest``: identifies the images by their names and contents, or, of files of more than 1 GiB together, by their
    names and sizes; filled in if they exist. For other fields see LabelledImages. Raises FileNotFoundError for a
    missing folder; ValueError for fewer than two classes, a class without an image or with a single one that would have
    to be divided, a class of the test set that the training set lacks, a damaged image, and a wrong digest.
    """

    root: str = field(default="", metadata={"location": True})
    size: int = 32
    test: float = 0.2
    memory: float = 2.0
    loaders: int = field(default=4, metadata={"location": True})  # changes nothing but the time
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError(f"root=: empty; give {WANTED}")
        if self.size < 1:
            raise ValueError(f"size={self.size}: must not be less than 1; give pixels such as 32")
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.2")
        if not self.memory >= 0:
            raise ValueError(f"memory={self.memory}: must not be negative; give GB such as 2")
        check_loaders(self.loaders)
        super().__post_init__()
        found = self._sum()
        if self.digest and found not in (self.digest, ""):
            raise ValueError(self._changed())
        self.digest = self.digest or found

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        names, listed, apart = self._listed()
        if self.digest not in ("", self._sum()):
            raise ValueError(f"dataset.{self._changed()}")
        (train, train_y), (test, test_y) = (listed, apart) if apart else self._divided(names, *listed)
        rows, test_rows = self.chosen(train_y, test_y)
        if self.validation is not None:
            test, test_y = train, train_y
        source = sources_of([train[i] for i in rows.tolist()], place(self.root))
        photos = [
            Photos([paths[i] for i in chosen.tolist()], labels[chosen], self.size, loaders=self.loaders)
            for paths, labels, chosen in ((train, train_y, rows), (test, test_y, test_rows))
        ]
        train_y, test_y = (each.labels for each in photos)
        size = sum(len(each) for each in photos) * 3 * self.size**2 / 1e9
        if size <= self.memory:
            train_x, test_x = map(_decoded, photos)
            mean, std = statistics(train_x)
            std = std.where(std > 0, 1.0)  # of a channel that has one value
            scale = mean.to(dtype), std.to(dtype)
            return Data(train_x, train_y, test_x, test_y, len(names), None, *scale, self.augment, source=source)
        if self.augment != Augment():
            raise ValueError(
                f"dataset.memory={self.memory}: the images take {size:.3g} GB, and dataset.augment acts on images in "
                "memory; give more, a smaller dataset.size, or no augment"
            )
        return Data(photos[0], train_y, photos[1], test_y, len(names), None, MEAN, STD, source=source)

    @property
    def _key(self) -> str:
        return f"dataset.root={self.root}"

    def _sum(self) -> str:
        try:
            _, train, test = self._listed()
            return contents_sum(place(self.root), [*train[0], *(test[0] if test else ())])
        except (OSError, ValueError):
            return ""  # load raises the error

    def _changed(self) -> str:
        return f"digest={self.digest}: the images have changed since; leave it out to take them as they are now"

    def _listed(self) -> tuple[list[str], Listed, Listed | None]:
        """The names of the classes, the training images, and the test images if there is a folder of them."""
        root = place(self.root)
        if not os.path.isdir(root):
            raise FileNotFoundError(f"{self._key}: {root} is missing; give {WANTED}")
        whole = root / "train" if subfolders(root / "train") else root
        parts = [root / name for name in ("test", "val") if whole != root and subfolders(root / name)]
        names = subfolders(whole)
        if len(names) < 2:
            raise ValueError(f"{self._key}: {whole} has {len(names)} classes, and needs two; give {WANTED}")
        train = self._images(whole, names, names)
        return names, train, self._images(parts[0], names, subfolders(parts[0])) if parts else None

    def _divided(self, names: Sequence[str], paths: Sequence[str], labels: Tensor) -> tuple[Listed, Listed]:
        """The training images and test images where there is no folder of these."""
        counts = torch.bincount(labels)
        if int(counts.min()) < 2:
            name = names[int(counts.argmin())]
            raise ValueError(f"{self._key}: class {name} has one image, which cannot be in both sets; give two or more")
        share = min(max(round(self.test * len(paths)), len(names)), len(paths) - len(names))
        rows = torch.from_numpy(validation_split(share, labels.numpy())[1])
        kept, held_out = (
            ([paths[i] for i in some.tolist()], labels[some]) for some in (without(rows, len(paths)), rows)
        )
        return kept, held_out

    def _images(self, folder: Path, names: Sequence[str], present: Sequence[str]) -> Listed:
        """The images of the classes ``present``; their numbers are their places in ``names``."""
        paths: list[str] = []
        labels: list[int] = []
        for name in present:
            if name not in names:
                raise ValueError(
                    f"{self._key}: class {name} is in {folder} but not in {folder.parent / 'train'}; the folders in "
                    "both must have the same names"
                )
            inside = images_in(folder / name)
            if not inside:
                raise ValueError(f"{self._key}: {folder / name} has no image; put some there, or remove that folder")
            paths += inside
            labels += [names.index(name)] * len(inside)
        return paths, torch.tensor(labels)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, sorted, without hidden ones; none if it is no folder."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path) -> list[str]:
    """The paths of all images below ``folder``, sorted, without hidden ones; it does not follow links to folders."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(here, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes()
        ]
    return sorted(found)


def sources_of(paths: Sequence[str], root: Path) -> Tensor | None:
    """The number of each image's source, int64 [m], in the order of their names: of the folder that lies in the
    image's class, '' where it lies there itself. None if all do."""
    from_root = [Path(path).relative_to(root).parts for path in paths]
    skip = 2 if subfolders(root / "train") else 1  # as whole in _listed
    names = [parts[skip] if len(parts) > skip + 1 else "" for parts in from_root]
    known = {name: i for i, name in enumerate(sorted(set(names)))}
    return torch.tensor([known[name] for name in names]) if any(names) else None


@cache
def suffixes() -> set[str]:
    """Those of the formats that Pillow reads."""
    from PIL import Image

    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def contents_sum(root: Path, paths: Sequence[str]) -> str:
    """16 hex digits of BLAKE2b of the names, from ``root`` on, and the contents of the files; of files of more than
    CONTENTS bytes together see photos.names_sum. Raises OSError for a file that cannot be read."""
    if sum(os.stat(path).st_size for path in paths) > CONTENTS:
        return names_sum(root, paths)

    def described(path: str) -> bytes:
        with open_regular(path) as file:
            content = hashlib.blake2b(file.read()).digest()
        return os.fsencode(os.path.relpath(path, root)) + b"\0" + content

    whole = hashlib.blake2b(digest_size=8)
    with ThreadPoolExecutor() as several:
        for each in several.map(described, paths):
            whole.update(each)
    return whole.hexdigest()


def _decoded(photos: Photos) -> Tensor:
    """All images, uint8 [m, 3, S, S]. Raises ValueError for a damaged file."""
    images = torch.empty(photos.shape, dtype=torch.uint8)

    def decode(index: int) -> None:
        images[index] = photos.read(index, None)

    with ThreadPoolExecutor() as several:
        for _ in several.map(decode, range(len(photos))):
            pass
    return images
