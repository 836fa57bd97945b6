"""dataset=folder on small images: its layouts, how it divides and decodes them, what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli
from PIL import Image
from registry import plan
from torch import Tensor

from commexp.config.messages import UserError
from commexp.problems import Data
from commexp.problems.augment import Augment
from commexp.problems.datasets import BySource, Folder, folder
from commexp.problems.datasets.photos import MEAN, STD, Photos
from commexp.run_folder import Run

FORMATS = ("png", "jpg", "BMP", "gif", "webp", "tiff", "ppm")
SIZE = 8


def draw(path: Path, value: int) -> None:
    """An image of 10 x 12 pixels around one colour, from which the label and number can be read in any format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (value, 255 - value, 40)).save(path)


def write(root: Path, parts: dict[str, dict[str, int]]) -> Path:
    """Of each part ('' for the folder itself) and class so many images, in turn of every format; their red is the
    number of the image over all."""
    number = 0
    for part, classes in parts.items():
        for name, count in classes.items():
            for i in range(count):
                draw(root / part / name / f"{i:02}.{FORMATS[i % len(FORMATS)]}", 3 * number)
                number += 1
    return root


def load(root: Path, **fields: object) -> Data:
    return Folder(root=str(root), **{"size": SIZE, **fields}).load(2, 0, torch.float32)  # type: ignore[arg-type]


def numbers(x: Tensor) -> list[int]:
    """Of the images of ``write``; formats with losses change a red of 3 n by less than 1.5."""
    assert isinstance(x, Tensor)
    return [round(float(image[0].float().mean()) / 3) for image in x]


CLASSES = {"cat": 10, "ant": 5, "bee": 20}


def test_classes_by_folder_are_divided_by_class(tmp_path: Path) -> None:
    data = load(write(tmp_path, {"": CLASSES}))
    assert (data.classes, data.image_shape, data.train_x.dtype) == (3, (3, SIZE, SIZE), torch.uint8)
    train, test = numbers(data.train_x), numbers(data.test_x)
    assert sorted(train + test) == list(range(35))
    assert data.test_y is not None
    assert (data.train_y.bincount().tolist(), data.test_y.bincount().tolist()) == ([4, 16, 8], [1, 4, 2])
    for x, y in ((train, data.train_y), (test, data.test_y)):  # ant: 10 .. 14, bee: 15 .. 34, cat: 0 .. 9
        assert [0 if 10 <= n < 15 else 1 if n >= 15 else 2 for n in x] == y.tolist()
    other = Folder(root=str(tmp_path), size=SIZE).load(5, 9, torch.float64)
    assert torch.equal(other.train_x, data.train_x)
    x = data.train_x / 255
    assert data.mean is not None
    assert data.std is not None
    assert torch.allclose(data.mean, x.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(data.std, x.std((0, 2, 3), correction=0), atol=1e-6)


@pytest.mark.parametrize("part", ["", "train"])
def test_writers_are_folders_within_the_classes(part: str, tmp_path: Path) -> None:
    """A writer has images of several classes, and goes to one worker as a whole."""
    for name in ("one", "two"):
        for writer in range(6):
            for i in range(1 + writer):
                draw(tmp_path / part / name / f"w{writer}" / f"{i}.png", 39 * writer)
    data = load(tmp_path, test=0.2)
    assert data.source is not None
    assert [n // 13 for n in numbers(data.train_x)] == data.source.tolist()
    parts = BySource().split(data, 3, 0)
    held = [set(data.source[rows].tolist()) for rows in parts]
    assert sum(map(len, held)) == len(set().union(*held)) == 6
    assert sorted(data.source_counts(parts)) == sorted(
        (n, w, int((data.source == w).sum())) for n, some in enumerate(held) for w in some
    )
    flat = load(write(tmp_path / "flat", {"": CLASSES}))
    assert flat.source is None
    with pytest.raises(ValueError, match=r"^partition=by_source: the data have no sources; give partition=iid or nat"):
        BySource().split(flat, 3, 0)


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_test_set_of_its_own(held_out: str, tmp_path: Path) -> None:
    data = load(write(tmp_path, {"train": CLASSES, held_out: {"bee": 2, "cat": 3}}))
    assert (len(data.train_x), len(data.test_x)) == (35, 5)
    assert data.test_y is not None
    assert data.test_y.tolist() == [1, 1, 2, 2, 2]
    assert numbers(data.test_x) == list(range(35, 40))
    assert numbers(data.train_x) == [*range(10, 15), *range(15, 35), *range(10)]


def test_layouts_are_told_by_what_is_there(tmp_path: Path) -> None:
    whole = write(tmp_path / "a", {"train": CLASSES})
    assert len(load(whole).train_x) == 28, "no test set: the training set is divided"
    write(whole, {"test": {"ant": 3}, "val": {"ant": 4}})
    assert len(load(whole).test_x) == 3
    vehicles = write(tmp_path / "b", {"": {"car": 5, "train": 5}})
    assert load(vehicles).classes == 2
    write(vehicles, {"": {".cache": 3}, "car": {"old": 4}})
    draw(vehicles / "car" / ".hidden.png", 0)
    (vehicles / "car" / "readme.txt").write_text("no image")
    data = load(vehicles)
    assert data.test_y is not None
    assert torch.cat([data.train_y, data.test_y]).bincount().tolist() == [9, 5]


def test_images_are_decoded_as_photos_are(tmp_path: Path) -> None:
    """Also those that are not in colour."""
    rng = np.random.default_rng(0)
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        for i, shape in enumerate([(30, 40), (40, 30, 3), (20, 20, 4)]):
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / name / f"{i}.png")
    data = load(tmp_path, size=16, test=0.4)
    paths = sorted(str(path) for path in tmp_path.rglob("*.png"))
    wanted = Photos(paths, torch.zeros(6), 16)
    found = Counter(image.numpy().tobytes() for image in torch.cat([data.train_x, data.test_x]))
    assert found == Counter(wanted.read(i, None).numpy().tobytes() for i in range(6))


def test_choices_of_images(tmp_path: Path) -> None:
    root = write(tmp_path, {"": CLASSES})
    few = load(root, test=0.5, samples=7, test_samples=8)
    assert few.test_y is not None
    assert few.train_y.bincount().tolist() == [1, 4, 2]
    assert (few.test_y.bincount() - torch.tensor([5, 20, 10]) * 8 / 35).abs().max() < 1
    with pytest.raises(ValueError, match=r"^dataset.test_samples=4: a class has one sample alone, which cannot be on"):
        load(root, test_samples=4)
    whole = load(root)
    part = load(root, validation=7)
    assert part.test_y is not None
    assert sorted(numbers(part.train_x) + numbers(part.test_x)) == sorted(numbers(whole.train_x))
    assert part.test_y.bincount().tolist() == [1, 4, 2]
    both = load(root, samples=14, validation=7)
    assert not set(numbers(both.train_x)) & set(numbers(both.test_x))
    assert (len(both.train_x), len(both.test_x)) == (14, 7)
    assert set(numbers(both.train_x)) | set(numbers(both.test_x)) <= set(numbers(whole.train_x))


def test_images_that_do_not_fit_stay_in_their_files(tmp_path: Path) -> None:
    root = write(tmp_path, {"": CLASSES})
    here, there = load(root), load(root, memory=35 * 3 * SIZE**2 / 1e9 - 1e-12, loaders=0)
    for x, photos, y in ((here.train_x, there.train_x, here.train_y), (here.test_x, there.test_x, here.test_y)):
        assert isinstance(photos, Photos)
        assert (photos.augment, photos.loaders) == (False, 0)
        assert torch.equal(torch.stack([photos.read(i, None) for i in range(len(photos))]), x)
        assert torch.equal(photos.labels, y)  # type: ignore[arg-type]
    assert torch.equal(there.mean, MEAN)  # type: ignore[arg-type]
    assert torch.equal(there.std, STD)  # type: ignore[arg-type]
    assert isinstance(load(root, memory=35 * 3 * SIZE**2 / 1e9).train_x, Tensor)
    wrong = r"^dataset.memory=0.0: the images take 6.72e-06 GB, and dataset.augment acts on images in memory; give more"
    with pytest.raises(ValueError, match=wrong):
        load(root, memory=0.0, augment=Augment(flip=True))


def test_a_channel_of_one_value_is_no_division_by_zero(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(4):
            draw(tmp_path / name / f"{i}.png", 20)
    data = load(tmp_path)
    assert data.std is not None
    assert data.std.tolist() == [1.0, 1.0, 1.0]


def test_the_content_names_the_run_and_the_place_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (write(tmp_path / place, {"": CLASSES}) for place in ("here", "there"))
    words = ("dataset=folder", "dataset.size=8")
    made = plan(*words, f"dataset.root={here}")
    assert made.name.split("-")[2] == "folder"
    assert plan(*words, f"dataset.root={there}").name == made.name
    first = here / "ant" / "02.BMP"
    content = first.read_bytes()
    first.write_bytes(content[:-1] + b"\1")  # of the same size
    assert plan(*words, f"dataset.root={here}").name != made.name
    with pytest.raises(
        ValueError, match=r"^dataset.digest=\w{16}: the images have changed since; leave it out to take"
    ):
        made.dataset.load(1, 0, torch.float32)
    with pytest.raises(UserError, match=r"^dataset.digest=\w{16}: the images have changed since; leave it out to take"):
        plan(*words, f"dataset.root={here}", f"dataset.digest={Folder(root=str(there)).digest}")
    monkeypatch.setattr(folder, "CONTENTS", 100)
    names = [Folder(root=str(place)).digest for place in (here, there)]
    assert names[0] == names[1], "of many bytes only the sizes count"
    first.write_bytes(content + b"\1")
    assert Folder(root=str(here)).digest != names[0]
    first.rename(first.with_name("99.bmp"))
    first.with_name("99.bmp").write_bytes(content)
    assert Folder(root=str(here)).digest != names[0]


def add_strange(root: Path) -> None:
    write(root, {"train": {"a": 2, "b": 2}, "val": {"c": 1}})


def damage(root: Path) -> None:
    write(root, {"": {"a": 3, "b": 3}})
    (root / "b" / "01.jpg").write_bytes((root / "b" / "01.jpg").read_bytes()[:300])


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda root: None, "dataset.root=ROOT: ROOT is missing; give a folder with a subfolder of images for "),
    "a file": (lambda root: root.write_text(""), "dataset.root=ROOT: ROOT is missing; give a folder with "),
    "empty": (Path.mkdir, "dataset.root=ROOT: ROOT has 0 classes, and needs two; give a folder with a subfolder "),
    "one class": (lambda root: write(root, {"": {"a": 3}}), "dataset.root=ROOT: ROOT has 1 classes, and needs two; "),
    "an empty class": (
        lambda root: (write(root, {"": {"a": 3, "b": 3}}), (root / "c").mkdir()),
        "dataset.root=ROOT: ROOT/c has no image; put some there, or remove that folder",
    ),
    "one image": (
        lambda root: write(root, {"": {"a": 3, "b": 1}}),
        "dataset.root=ROOT: class b has one image, which cannot be in both sets; give two or more",
    ),
    "a class of the test set": (
        add_strange,
        "dataset.root=ROOT: class c is in ROOT/val but not in ROOT/train; the folders in both must have the same names",
    ),
    "damaged": (damage, "dataset: ROOT/b/01.jpg cannot be read as an image ("),
}


@pytest.mark.parametrize("name", REFUSED)
def test_folders_that_are_refused(name: str, tmp_path: Path) -> None:
    make, wrong = REFUSED[name]
    make(tmp_path / "given")
    with pytest.raises((ValueError, FileNotFoundError)) as refusal:
        load(tmp_path / "given")
    assert str(refusal.value).startswith(wrong.replace("ROOT", str(tmp_path / "given")))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "word", ["root=", "size=0", "test=1.0", "memory=-1.0", "loaders=-1", "samples=0", "augment.crop=-1"]
)
def test_fields_that_make_no_sense(word: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.{word}: .*; give "):
        plan("dataset=folder", "dataset.root=x", f"dataset.{word}")


def test_a_damaged_image_ends_the_command_in_one_line(entry: Cli, tmp_path: Path) -> None:
    damage(tmp_path / "in")
    ended = entry("dataset=folder", "dataset.root=in", "rounds=2")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("commexp: error: dataset: in/b/01.jpg cannot be read as an image (")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_a_model_learns_the_colours(memory: float, run: Callable[..., Run], tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"": {"a": 20, "b": 20}})
    words = ["dataset=folder", f"dataset.root={root}", "dataset.size=8", "model=cnn", "model.width=4", "model.layers=1"]
    more = ["workers=2", "rounds=20", "eval_every=20", "algo.lr=0.3", f"dataset.memory={memory}", "dataset.loaders=0"]
    found = run(*words, "model.groups=2", *more)
    assert found.metrics["train_loss"].iloc[-1] < 0.9 * found.metrics["train_loss"].iloc[0]
