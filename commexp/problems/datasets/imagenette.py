"""Imagenette: ten easy classes of ImageNet, from files on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.files import from_archive, place
from commexp.problems.datasets.photos import check_fields, from_folders, identity
from commexp.problems.datasets.stratified import check_validation

#: for each size the archive's name without .tgz, which is also its top folder, and its MD5 sum
ARCHIVES = {
    "full": ("imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612"),
    "320px": ("imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3"),
    "160px": ("imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412"),
}
ADDRESS = "https://s3.amazonaws.com/fast-ai-imageclas/"
PAGE = "https://github.com/fastai/imagenette"


@dataclass
class Imagenette(Dataset):
    """9,469 training and 3,925 validation photos of ten classes.

    ``root``: the folder in which imagenette2-320 lies (or imagenette2-160, imagenette2), or that folder's .tgz archive.
    ``size``: of the shorter side in the files: 320px, 160px or full. ``download``: whether to download a missing
    archive. ``image_size``, ``augment``, ``loaders``: see Photos. ``digest``: identifies the photos by their names and
    sizes; filled in if they exist, empty if the archive is still packed, whose checksum is verified. ``validation``: a
    number of training photos that are not trained on and replace the validation photos as test set, so that tuning does
    not use it. Raises ValueError for an unknown size or a damaged archive, FileNotFoundError if a folder is missing.
    Source: Howard,
    github.com/fastai/imagenette; sums as torchvision lists them.
    """

    root: str = field(default="data", metadata={"location": True})
    size: str = "320px"
    image_size: int = 224
    augment: bool = True
    download: bool = field(default=False, metadata={"location": True})
    loaders: int = field(default=4, metadata={"location": True})  # changes nothing but the time
    digest: str = ""
    validation: int | None = field(default=None, metadata={"added": True})

    def __post_init__(self) -> None:
        if self.size not in ARCHIVES:
            raise ValueError(f"size={self.size}: unknown; give 320px, 160px or full")
        check_fields(self.image_size, self.loaders)
        check_validation(self.validation)
        self.digest = self.digest or identity(self.folder)

    @property
    def folder(self) -> Path:
        return place(self.root, ARCHIVES[self.size][0])

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        name, md5 = ARCHIVES[self.size]
        folder = self.folder

        def missing() -> Path | None:
            return next((folder / part for part in ("train", "val") if not os.path.isdir(folder / part)), None)

        key, url = "dataset=imagenette", f"{ADDRESS}{name}.tgz"
        from_archive(key, self.root, url, md5, PAGE, self.download, missing)
        remedy = f"remove {folder} and unpack {name}.tgz anew"
        parts = self.image_size, self.augment, self.loaders
        return from_folders(key, self.root, folder, *parts, remedy, self.digest, self.validation)
