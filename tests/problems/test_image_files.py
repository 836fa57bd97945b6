"""Image datasets on small files of the published formats: whole, damaged, missing, still packed."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets as published
from PIL import Image
from problems.test_datasets import write_fashion

from commexp.problems.augment import Augment
from commexp.problems.datasets import (
    CIFAR10,
    CIFAR100,
    MNIST,
    Dirichlet,
    FashionMNIST,
    Iid,
    ImageNet,
    Imagenette,
    ImageSet,
)
from commexp.problems.datasets.imagenette import ARCHIVES
from commexp.problems.datasets.images import statistics
from commexp.problems.datasets.stratified import pick

Patch = pytest.MonkeyPatch
CPU32 = (4, 0, torch.float32)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write_idx(folder: Path, monkeypatch: Patch, kind: str, m: int = 60) -> None:
    """The four files, with the first image's corners lit one by one; torchvision's sums become theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, sums = np.random.default_rng(0), []
    for part, count in (("train", m), ("t10k", m // 2)):
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
        images = struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 2049, count) + (np.arange(count) % 10).astype(np.uint8).tobytes()
        for name, raw in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
            packed = gzip.compress(raw)
            (folder / name).write_bytes(packed)
            sums.append((name, md5(packed)))
    monkeypatch.setattr(getattr(published, kind), "resources", sums)


def write_cifar(folder: Path, monkeypatch: Patch, kind: str, m: int = 40) -> None:
    """Batches of m rows each: red plane, green plane, blue plane; torchvision's sums become theirs."""
    theirs, rng = getattr(published, kind), np.random.default_rng(0)
    base = folder / theirs.base_folder
    base.mkdir(parents=True)
    classes, key = (10, "labels") if kind == "CIFAR10" else (100, "fine_labels")
    for listed in ("train_list", "test_list"):
        sums = []
        for name, _ in getattr(theirs, listed):
            rows = rng.integers(0, 256, (m, 3072), np.uint8)
            rows[:, 0], rows[:, 31], rows[:, 1024] = 1, 2, 3  # red at (0, 0), red at (0, 31), green at (0, 0)
            content = pickle.dumps({"data": rows, key: [i % classes for i in range(m)]})
            (base / name).write_bytes(content)
            sums.append([name, md5(content)])
        monkeypatch.setattr(theirs, listed, sums)
    content = pickle.dumps({theirs.meta["key"]: [str(c) for c in range(classes)]})
    (base / theirs.meta["filename"]).write_bytes(content)
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(content)})


def pack(archive: Path, folder: Path, name: str) -> str:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / name, arcname=name)
    return md5(archive.read_bytes())


def write_photos(folder: Path, classes: tuple[str, ...] = ("n01", "n02", "n03"), each: int = 4) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (30 + i, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{name}_{i}.JPEG")


def no_network(url: str, *_: object) -> None:
    raise URLError("no route\nto host")


@pytest.mark.parametrize(("family", "layout"), [(MNIST, "MNIST/raw"), (FashionMNIST, "FashionMNIST/raw")])
def test_idx_files_are_read_from_root_and_from_torchvisions_folder(
    family: type[ImageSet], layout: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("commexp.problems.datasets.fashion_mnist.DEBIAN", tmp_path / "none")
    for place in (".", layout):
        root = tmp_path / place.replace("/", "_")
        write_idx(root / place, monkeypatch, family.__name__)
        data = family(root=str(root)).load(*CPU32)
        assert (data.train_x.shape, data.test_x.shape) == ((60, 1, 28, 28), (30, 1, 28, 28))
        assert data.train_x.dtype == torch.uint8
        assert data.train_y.tolist() == [i % 10 for i in range(60)]
        theirs = gzip.decompress((root / place / "train-images-idx3-ubyte.gz").read_bytes())
        assert data.train_x.numpy().tobytes() == theirs[16:]
        assert (data.classes, data.image_shape) == (10, (1, 28, 28))


def test_idx_files_missing_damaged_or_of_another_format_are_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    with pytest.raises(FileNotFoundError, match=r"^dataset=mnist: train-images.* is not in .*; put the four .*, or "):
        MNIST(root=str(tmp_path)).load(*CPU32)
    write_idx(tmp_path, monkeypatch, "MNIST")
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    with pytest.raises(ValueError, match=r"dataset.root=.*train-labels.* is damaged \(its MD5 sum is not \w+\); get"):
        MNIST(root=str(tmp_path)).load(*CPU32)
    short = gzip.compress(gzip.decompress(sound)[:-1])
    path.write_bytes(short)
    sums = [(name, md5(short) if name == path.name else s) for name, s in published.MNIST.resources]
    monkeypatch.setattr(published.MNIST, "resources", sums)
    with pytest.raises(ValueError, match=r"train-labels.* is no IDX file"):
        MNIST(root=str(tmp_path)).load(*CPU32)


def test_idx_files_are_fetched_if_asked_for(tmp_path: Path, monkeypatch: Patch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    write_idx(there, monkeypatch, "MNIST")
    asked = []

    def download(url: str, root: str, filename: str, md5: str) -> None:
        asked.append(url)
        if url.startswith(published.MNIST.mirrors[0]):
            raise URLError("first mirror is down")
        (Path(root) / filename).write_bytes((there / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download)
    data = MNIST(root=str(here), download=True).load(*CPU32)
    assert len(data.train_x) == 60
    assert len(asked) == 8
    assert {p.name for p in here.iterdir() if not p.name.startswith(".")} == {p.name for p in there.iterdir()}
    MNIST(root=str(here), download=True).load(*CPU32)
    assert len(asked) == 8, "what is there was fetched again"


@pytest.mark.parametrize("family", [MNIST, FashionMNIST, CIFAR10, CIFAR100, Imagenette])
def test_no_network_is_said_in_one_line(family: Callable[..., ImageSet], tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("commexp.problems.datasets.fashion_mnist.DEBIAN", tmp_path / "none")
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_network)
    with pytest.raises(FileNotFoundError) as refusal:
        family(root=str(tmp_path / "new"), download=True).load(*CPU32)
    message = str(refusal.value)
    assert message.startswith("dataset.download=true: http")
    assert "cannot be fetched" in message
    assert "no route to host" in message
    assert "; put " in message
    assert "\n" not in message
    assert not [p for p in (tmp_path / "new").iterdir() if not p.name.endswith(".lock")], "something was left"


@pytest.mark.parametrize(("family", "classes", "m"), [(CIFAR10, 10, 200), (CIFAR100, 100, 40)])
def test_cifar_is_read_channel_by_channel(
    family: type[ImageSet], classes: int, m: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    write_cifar(tmp_path, monkeypatch, family.__name__)
    data = family(root=str(tmp_path), augment=Augment(crop=4, flip=True)).load(*CPU32)
    assert (data.train_x.shape, data.test_x.shape) == ((m, 3, 32, 32), (40, 3, 32, 32))
    assert data.train_x.dtype == torch.uint8
    assert data.train_x.is_contiguous()
    assert data.train_x[0, 0, 0, 0] == 1
    assert data.train_x[0, 0, 0, 31] == 2
    assert data.train_x[0, 1, 0, 0] == 3
    assert data.train_y[:40].tolist() == [i % classes for i in range(40)]
    assert data.classes == classes
    assert data.augment == Augment(crop=4, flip=True)
    parts = Dirichlet(0.5).split(data, 4, 0)
    assert sum(map(len, parts)) == m


def test_cifar_missing_and_damaged_are_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    with pytest.raises(FileNotFoundError) as refusal:
        CIFAR10(root=str(tmp_path)).load(*CPU32)
    message = str(refusal.value)
    assert message.startswith(f"dataset=cifar10: {tmp_path}/cifar-10-batches-py/data_batch_1 is missing, and ")
    assert "; give dataset.download=true, or put cifar-10-python.tar.gz from " in message
    assert "\n" not in message
    write_cifar(tmp_path, monkeypatch, "CIFAR10")
    for name in ("data_batch_3", "test_batch", "batches.meta"):
        path = tmp_path / "cifar-10-batches-py" / name
        sound = path.read_bytes()
        path.write_bytes(sound + b"x")
        with pytest.raises(ValueError, match=rf"^dataset.root={tmp_path}: .*{name} is damaged \(.*; get it anew"):
            CIFAR10(root=str(tmp_path)).load(*CPU32)
        path.write_bytes(sound)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").unlink()
    with pytest.raises(FileNotFoundError, match=r"batches.meta is missing"):
        CIFAR10(root=str(tmp_path)).load(*CPU32)


def test_cifars_archive_is_unpacked_where_it_lies(tmp_path: Path, monkeypatch: Patch) -> None:
    write_cifar(tmp_path / "made", monkeypatch, "CIFAR100")
    root = tmp_path / "root"
    root.mkdir()
    archive = root / "cifar-100-python.tar.gz"
    sum_ = pack(archive, tmp_path / "made", "cifar-100-python")
    with pytest.raises(ValueError, match=r"cifar-100-python.tar.gz is damaged .*; get it anew"):
        CIFAR100(root=str(root)).load(*CPU32)
    monkeypatch.setattr(published.CIFAR100, "tgz_md5", sum_)
    data = CIFAR100(root=str(root)).load(*CPU32)
    assert len(data.train_x) == 40
    (root / "cifar-100-python" / "test").unlink()  # half unpacked: the rest is put there
    assert len(CIFAR100(root=str(root)).load(*CPU32).test_x) == 40
    names = {p.name for p in root.iterdir()}
    assert names == {"cifar-100-python", archive.name, f".{archive.name}.lock"}


@pytest.mark.parametrize("name", ["../outside", "/tmp/commexp-outside", "cifar-10-batches-py/link"])
def test_an_archive_that_would_write_elsewhere_is_refused(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_1"), io.BytesIO())
        member = tarfile.TarInfo(name)
        if name.endswith("link"):
            member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(member, io.BytesIO())
    monkeypatch.setattr(published.CIFAR10, "tgz_md5", md5(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"would write outside its folder \(.*\); get it anew"):
        CIFAR10(root=str(root)).load(*CPU32)
    assert {p.name for p in root.iterdir()} == {archive.name, f".{archive.name}.lock"}
    assert {p.name for p in tmp_path.iterdir()} == {"root"}
    assert not Path("/tmp/commexp-outside").exists()


def test_an_archive_without_the_files_is_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "other").write_text("")
    sum_ = pack(tmp_path / "cifar-10-python.tar.gz", tmp_path, "other")
    monkeypatch.setattr(published.CIFAR10, "tgz_md5", sum_)
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz does not hold data_batch_1; get it anew"):
        CIFAR10(root=str(tmp_path)).load(*CPU32)


def test_imagenet_is_two_trees_of_class_folders(tmp_path: Path) -> None:
    write_photos(tmp_path)
    data = ImageNet(root=str(tmp_path), image_size=24, loaders=0).load(*CPU32)
    assert (data.classes, data.image_shape) == (3, (3, 24, 24))
    assert data.train_y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (len(data.train_x), len(data.test_x)) == (12, 12)
    assert (data.train_x.augment, data.test_x.augment) == (True, False)
    assert data.train_x.path(5).endswith("train/n02/n02_1.JPEG")
    assert sum(map(len, Iid().split(data, 5, 0))) == 12
    assert sum(map(len, Dirichlet(0.5).split(data, 3, 0))) == 12
    for path in (tmp_path / "val" / "n01").iterdir():
        path.unlink()
    (tmp_path / "val" / "n01").rmdir()  # labels go by train's classes
    assert ImageNet(root=str(tmp_path)).load(*CPU32).test_y.tolist() == [1] * 4 + [2] * 4


def test_imagenet_missing_empty_or_contradictory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^dataset=imagenet: {tmp_path}/train is missing; put the photos"):
        ImageNet(root=str(tmp_path)).load(*CPU32)
    write_photos(tmp_path)
    strange = tmp_path / "val" / "n09"
    (tmp_path / "val" / "n01").rename(strange)
    with pytest.raises(ValueError, match=rf"dataset.root={tmp_path}: class n09 is in .*val but not in .*train; "):
        ImageNet(root=str(tmp_path)).load(*CPU32)
    (tmp_path / "train" / "n00").mkdir()
    with pytest.raises(FileNotFoundError, match=r"dataset=imagenet: .*train is incomplete \(.*n00.*\); put") as refusal:
        ImageNet(root=str(tmp_path)).load(*CPU32)
    assert "\n" not in str(refusal.value)


def test_imagenette_is_read_and_unpacked(tmp_path: Path, monkeypatch: Patch) -> None:
    assert {size: md5 for size, (_, md5) in ARCHIVES.items()} == {
        size: md5 for size, (_, md5) in published.Imagenette._ARCHIVES.items()
    }
    with pytest.raises(FileNotFoundError, match=r"imagenette2-160/train is missing, and imagenette2-160.tgz is not in"):
        Imagenette(root=str(tmp_path), size="160px").load(*CPU32)
    write_photos(tmp_path / "made" / "imagenette2-160")
    sum_ = pack(tmp_path / "imagenette2-160.tgz", tmp_path / "made", "imagenette2-160")
    monkeypatch.setitem(ARCHIVES, "160px", ("imagenette2-160", sum_))
    data = Imagenette(root=str(tmp_path), size="160px", image_size=16, augment=False).load(*CPU32)
    assert (len(data.train_x), data.classes, data.train_x.augment) == (12, 3, False)
    assert (tmp_path / "imagenette2-160" / "val").is_dir()


def test_a_subset_keeps_the_classes_shares_and_is_always_the_same(tmp_path: Path, monkeypatch: Patch) -> None:
    write_idx(tmp_path, monkeypatch, "MNIST", m=200)
    few = MNIST(root=str(tmp_path), samples=50, test_samples=20)
    one, two = few.load(4, 0, torch.float32), few.load(8, 5, torch.float32)
    assert torch.bincount(one.train_y).tolist() == [5] * 10
    assert torch.bincount(one.test_y).tolist() == [2] * 10
    assert torch.equal(one.train_x, two.train_x)
    whole = MNIST(root=str(tmp_path)).load(4, 0, torch.float32)
    assert torch.equal(one.mean, whole.mean)
    assert one.train_y.tolist() != sorted(one.train_y.tolist()), "the order of the files is lost"
    assert len(MNIST(root=str(tmp_path), samples=200).load(4, 0, torch.float32).train_x) == 200
    for n in (9, 195, 201):
        with pytest.raises(
            ValueError, match=rf"^dataset.samples={n}: out of range; give 10 to 190 of the 200, or null"
        ):
            MNIST(root=str(tmp_path), samples=n).load(4, 0, torch.float32)


def test_a_subset_is_spread_over_the_files() -> None:
    rows = pick("samples", 1000, torch.arange(60_000) % 10)
    assert len(rows.unique()) == 1000
    assert abs(float(rows.double().mean()) - 30_000) < 2500


def test_statistics_are_those_of_the_pixels() -> None:
    images = torch.randint(256, (50, 3, 6, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean, std = statistics(images)
    x = images.double() / 255
    assert torch.allclose(mean, x.mean((0, 2, 3)))
    assert torch.allclose(std, x.std((0, 2, 3), correction=0))


REFUSED: dict[str, Callable[[], object]] = {
    "samples=0: must not be less than 1": lambda: MNIST(samples=0),
    "test_samples=-2: must not be less than 1": lambda: CIFAR10(test_samples=-2),
    "root=: empty": lambda: CIFAR100(root=""),
    "size=64px: unknown": lambda: Imagenette(size="64px"),
    "image_size=0: must not be less than 1": lambda: ImageNet(image_size=0),
    "loaders=-1: must not be negative": lambda: Imagenette(loaders=-1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_fields_are_checked(message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}.*; give|^{message}.*; 224"):
        REFUSED[message]()


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_debians_files_have_the_published_sums_and_statistics() -> None:
    data = FashionMNIST(samples=1000).load(*CPU32)
    assert float(data.mean) == pytest.approx(0.2860, abs=1e-4)
    assert float(data.std) == pytest.approx(0.3530, abs=1e-4)
    assert torch.bincount(data.train_y).tolist() == [100] * 10


def test_validation_images_are_other_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import FashionMNIST as Published

    sums = write_fashion(tmp_path, train=400)
    monkeypatch.setattr(Published, "resources", list(sums.items()))
    whole = FashionMNIST(root=str(tmp_path)).load(1, 0, torch.float32)
    part = FashionMNIST(root=str(tmp_path), samples=100, validation=150).load(1, 0, torch.float32)
    assert (len(part.train_x), len(part.test_x)) == (100, 150)
    assert part.test_y is not None
    assert torch.equal(torch.bincount(part.test_y), torch.full((10,), 15))
    images = {row.numpy().tobytes() for row in whole.train_x}
    trained, held_out = ({row.numpy().tobytes() for row in x} for x in (part.train_x, part.test_x))
    assert trained < images
    assert held_out < images
    assert not trained & held_out
    again = FashionMNIST(root=str(tmp_path), samples=100, validation=150).load(1, 5, torch.float32)
    assert torch.equal(again.test_x, part.test_x)
    others = FashionMNIST(root=str(tmp_path), validation=150).load(1, 0, torch.float32)
    trained, held_out = ({row.numpy().tobytes() for row in x} for x in (others.train_x, others.test_x))
    assert (len(others.train_x), len(others.test_x)) == (250, 150)
    assert trained | held_out == images
    with pytest.raises(ValueError, match=r"dataset.validation=150: no training images are left"):
        FashionMNIST(root=str(tmp_path), samples=400, validation=150).load(1, 0, torch.float32)
