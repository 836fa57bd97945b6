"""What CIFAR-10 and CIFAR-100 share: their archives and torchvision's reading of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commexp.problems.datasets.files import check, from_archive, place

PAGE = "the CIFAR page (https://www.cs.toronto.edu/~kriz/cifar.html)"


def read(key: str, root: str, download: bool, published: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images uint8 [m, 3, 32, 32] and labels int64 [m], test images and labels.

    ``published``: torchvision's class, which says which files there are and what their MD5 sums are; every file is
    checked before it is read. Raises FileNotFoundError for a missing file, ValueError for a damaged one.
    """
    listed = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    files = {place(root) / published.base_folder / name: md5 for name, md5 in listed}

    def missing() -> Path | None:
        return next((path for path in files if not os.path.isfile(path)), None)

    from_archive(key, root, published.url, published.tgz_md5, PAGE, download, missing)
    for path, md5 in files.items():
        check(root, path, md5)
    parts = [published(place(root), train=train) for train in (True, False)]
    images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in parts]
    labels = [torch.tensor(part.targets, dtype=torch.long) for part in parts]
    return images[0], labels[0], images[1], labels[1]
