"""Data sets of LIBSVM's page by name: their files, and the published sizes by which a file is recognised.

Source: csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html, which names who made each.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from commexp.files import PACKED, reading
from commexp.problems.datasets.files import place
from commexp.problems.datasets.svmlight import PAGE, Rules, Samples, read

BINARY = f"{PAGE}binary.html"
HASHED = 2**22  # bytes: of the files with a known sum the largest has 2.3 million


@dataclass(frozen=True)
class PublishedFile:
    """``name``: on the page, where it may end in .bz2 or .xz. ``samples``: its lines. ``sha256``: of the unpacked file,
    where it is known."""

    name: str
    samples: int
    sha256: str = ""


@dataclass(frozen=True)
class PublishedSet:
    """``features``: J, the largest index in ``train``. ``labels``: those in the files, ascending. ``test``: None where
    the page has none, or one of which nobody asks."""

    train: PublishedFile
    features: int
    labels: tuple[float, float] = (-1.0, 1.0)
    test: PublishedFile | None = None

    @property
    def files(self) -> list[PublishedFile]:
        return [self.train, *([self.test] if self.test else [])]


SETS = {
    "a9a": PublishedSet(
        PublishedFile("a9a", 32_561, "7ba53cccb27e2e525f0fb173e1f446d49856e3fb007eb43be4ec6d0f5b3335ca"),
        123,
        test=PublishedFile("a9a.t", 16_281, "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9"),
    ),
    "epsilon": PublishedSet(
        PublishedFile("epsilon_normalized", 400_000), 2_000, test=PublishedFile("epsilon_normalized.t", 100_000)
    ),
    "gisette": PublishedSet(PublishedFile("gisette_scale", 6_000), 5_000, test=PublishedFile("gisette_scale.t", 1_000)),
    "ijcnn1": PublishedSet(PublishedFile("ijcnn1", 49_990), 22, test=PublishedFile("ijcnn1.t", 91_701)),
    "mushrooms": PublishedSet(PublishedFile("mushrooms", 8_124), 112, (1.0, 2.0)),
    "news20": PublishedSet(PublishedFile("news20.binary", 19_996), 1_355_191),
    "phishing": PublishedSet(PublishedFile("phishing", 11_055), 68, (0.0, 1.0)),
    "rcv1": PublishedSet(PublishedFile("rcv1_train.binary", 20_242), 47_236),  # its test set has 677,399 samples
    "real-sim": PublishedSet(PublishedFile("real-sim", 72_309), 20_958),
    "w8a": PublishedSet(PublishedFile("w8a", 49_749), 300, test=PublishedFile("w8a.t", 14_951)),
}


def found(root: str, file: PublishedFile) -> Path | None:
    """Where it lies in the folder ``root``, plain or packed; None where it does not."""
    places = [place(root, file.name + suffix) for suffix in PACKED]
    return next((each for each in places if os.path.isfile(each)), None)


def read_set(name: str, root: str, dtype: torch.dtype, with_test: bool = True) -> Iterator[Samples]:
    """The training samples of the set and, where it has a published test file, its test samples. ``with_test``: false
    leaves these out. Raises FileNotFoundError for a file that is not in ``root``, ValueError for one that is not the
    published one."""
    known = SETS[name]
    files = known.files if with_test else [known.train]
    paths = [found(root, file) for file in files]
    for path, file in zip(paths, files, strict=True):
        if path is None:
            several = len(files) > 1
            raise FileNotFoundError(
                f"dataset={name}: {file.name} is not in {root}; put {' and '.join(f.name for f in files)} there, "
                f"{'each ' if several else ''}plain, .gz, .bz2 or .xz, from {BINARY}"
            )
    for path, file in zip(paths, files, strict=True):
        assert path is not None
        yield _published(f"dataset.root={root}", path, file, known, dtype)


def _published(key: str, path: Path, file: PublishedFile, known: PublishedSet, dtype: torch.dtype) -> Samples:
    samples = None
    wrong = _other_sum(key, path, file) if file.sha256 else ""
    if not wrong:
        samples = read(key, path, Rules(dtype))
        wrong = _other_sizes(samples, file, known)
    if samples is None or wrong:
        raise ValueError(
            f"{key}: {path} is not the published {file.name} ({wrong}); get it anew from {BINARY}, or give "
            "dataset=libsvm for files of your own"
        )
    return samples


def _other_sum(key: str, path: Path, file: PublishedFile) -> str:
    """What is wrong with the content; empty if nothing is."""
    try:
        with reading(path) as content:
            digest = hashlib.sha256(content.read(HASHED)).hexdigest()
    except ValueError as error:
        raise ValueError(f"{key}: {path} cannot be read ({error}); get it anew") from error
    return "" if digest == file.sha256 else f"its SHA-256 sum, unpacked, is not {file.sha256}"


def _other_sizes(samples: Samples, file: PublishedFile, known: PublishedSet) -> str:
    """The same of the sizes and the labels. A test file may lack the last features and a label."""
    (count, largest), labels = samples.x.shape, {*np.unique(samples.labels).tolist()}
    if count != file.samples:
        return f"it has {count:,} samples, not {file.samples:,}"
    if largest > known.features or (largest < known.features and file is known.train):
        return f"its largest index is {largest:,}, not {known.features:,}"
    if not labels <= {*known.labels} or (file is known.train and len(labels) < 2):
        told, right = (" and ".join(f"{label:g}" for label in sorted(each)) for each in (labels, known.labels))
        return f"its labels are {told}, not {right}"
    return ""
