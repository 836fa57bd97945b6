"""dataset.validation: training samples that are not trained on stand in the place of the test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from problems.test_image_files import write_photos
from registry import options, plan, target

from commexp.config.messages import UserError
from commexp.problems import Data
from commexp.problems.datasets import A9A, BreastCancer, Digits, ImageNet, Imagenette, LibSVM, LowRank, MovieLens
from commexp.problems.datasets.libsvm_sets import SETS, PublishedFile, PublishedSet
from commexp.problems.datasets.photos import Photos
from commexp.problems.datasets.stratified import validation_split
from commexp.problems.ratings.data import Ratings
from commexp.problems.sparse_rows import SparseRows
from commexp.run_folder import Run

Rows = Counter[tuple[object, ...]]
WITHOUT_A_TEST_SET = {"linreg", "logreg", "toy"}


def rows(x: object, y: torch.Tensor) -> Rows:
    """Samples with their targets, each as one key, and how often each occurs."""
    if isinstance(x, Photos):
        each = [x.path(i) for i in range(len(x))]
    elif isinstance(x, Ratings):
        each = list(zip(x.users.tolist(), x.items.tolist(), strict=True))
    elif isinstance(x, SparseRows):
        each = [row.tobytes() for row in x.dense(torch.float64).numpy()]
    else:
        assert isinstance(x, torch.Tensor)
        each = [row.numpy().tobytes() for row in x]
    return Counter(zip(each, y.tolist(), strict=True))


def samples(folder: Path) -> Path:
    """A file of 60 samples of three classes, no two alike."""
    path = folder / "samples"
    path.write_text("".join(f"{i % 3} 1:{i + 1} 2:{i * i % 7 + 1}\n" for i in range(60)))
    return path


def films(folder: Path) -> Path:
    path = folder / "ratings.csv"
    lines = [f"{u},{i},{(u + i) % 5 + 1},{u * 100 + i}\n" for u in range(1, 11) for i in range(1, 11)]
    path.write_text("userId,movieId,rating,timestamp\n" + "".join(lines))
    return path


def a9a(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, count in (("a9a", 60), ("a9a.t", 30)):
        text = "".join(f"{(-1) ** i} {i % 60 + 1}:1 {i % 23 + 80}:1\n" for i in range(count))
        (folder / name).write_text(text)
    small = PublishedSet(PublishedFile("a9a", 60), 102, test=PublishedFile("a9a.t", 30))
    monkeypatch.setitem(SETS, "a9a", small)
    return folder


def photos(folder: Path) -> Path:
    write_photos(folder / "imagenette2-160", each=6)
    return folder


Load = Callable[..., Data]


@pytest.fixture(params=["a9a", "libsvm", "movielens random", "movielens time", "ratings", "imagenet", "imagenette"])
def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a dataset that is not standardised, so that a sample is the same in every split."""
    name = request.param

    def call(seed: int = 0, **fields: object) -> Data:
        made = {
            "a9a": lambda: A9A(str(tmp_path), **fields),  # type: ignore[arg-type]
            "libsvm": lambda: LibSVM(str(tmp_path / "samples"), **fields),  # type: ignore[arg-type]
            "movielens random": lambda: MovieLens(str(tmp_path / "ratings.csv"), **fields),  # type: ignore[arg-type]
            "movielens time": lambda: MovieLens(str(tmp_path / "ratings.csv"), split="time", **fields),  # type: ignore[arg-type]
            "ratings": lambda: LowRank(users=20, items=15, density=0.5, **fields),  # type: ignore[arg-type]
            "imagenet": lambda: ImageNet(str(tmp_path / "imagenette2-160"), **fields),  # type: ignore[arg-type]
            "imagenette": lambda: Imagenette(str(tmp_path), "160px", **fields),  # type: ignore[arg-type]
        }[name]()
        return made.load(2, seed, torch.float64)

    {"a9a": lambda: a9a(tmp_path, monkeypatch), "libsvm": lambda: samples(tmp_path), "ratings": lambda: None}.get(
        name, lambda: films(tmp_path) if name.startswith("movielens") else photos(tmp_path)
    )()
    return call


def test_validation_samples_are_other_training_samples(load: Load, request: pytest.FixtureRequest) -> None:
    whole, part = load(), load(validation=12)
    assert whole.test_y is not None
    assert part.test_y is not None
    train, test = rows(whole.train_x, whole.train_y), rows(whole.test_x, whole.test_y)
    kept, held_out = rows(part.train_x, part.train_y), rows(part.test_x, part.test_y)
    assert kept + held_out == train
    assert not held_out & test or "a9a" in request.node.name  # whose test file holds equal samples
    if "time" in request.node.name:
        assert held_out.total() == 10  # floor(12/80 * 8) = 1 of the 8 training ratings of each of 10 users ...
        users = part.test_x.users
        assert torch.equal(part.test_x.items, torch.full_like(users, 7)), "... its last: 9 and 10 are the test set's"
    else:
        assert held_out.total() == 12
    if whole.classes is not None:
        assert torch.equal(torch.bincount(part.test_y), torch.full((whole.classes,), 12 // whole.classes))
    again = load(validation=12)
    assert rows(again.test_x, again.test_y) == held_out  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "train"), [(Digits, 1437), (BreastCancer, 455)])
def test_standardised_samples(family: type[Digits] | type[BreastCancer], train: int) -> None:
    """Up to an affine map for each feature they are those of the whole training set, which here is found by ranks."""
    whole, part = (family(validation=n).load(1, 0, torch.float64) for n in (None, 100))
    assert (len(part.train_x), len(part.test_x)) == (train - 100, 100)
    before, after = whole.train_x.flatten(1), torch.cat([part.train_x, part.test_x]).flatten(1)
    assert torch.cat([part.train_y, part.test_y]).bincount().tolist() == whole.train_y.bincount().tolist()  # type: ignore[list-item]
    spread = lambda x: ((x - x.mean()) / x.std() if family is Digits else (x - x.mean(0)) / x.std(0)).round(decimals=8)  # noqa: E731
    one, two = (sorted(map(tuple, spread(x).tolist())) for x in (before, after))
    np.testing.assert_allclose(one, two, atol=1e-7)
    every = part.train_x if family is Digits else part.train_x.T
    assert float(every.mean(-1).abs().max() if family is BreastCancer else every.mean().abs()) < 1e-12
    share = whole.train_y.bincount() * 100 / train
    assert float((part.test_y.bincount() - share).abs().max()) < 1  # type: ignore[union-attr]
    again = family(validation=100).load(4, 3, torch.float64)
    assert torch.equal(again.test_x, part.test_x)


def test_every_dataset_with_a_test_set_has_it() -> None:
    for name in set(options("dataset")) - WITHOUT_A_TEST_SET:
        assert "validation" in target("dataset", name).__dataclass_fields__, name


@pytest.mark.parametrize("name", sorted(set(options("dataset")) - WITHOUT_A_TEST_SET))
def test_a_number_below_one_is_refused(name: str, tmp_path: Path) -> None:
    places = {
        "libsvm": f"dataset.path={samples(tmp_path)}",
        "folder": f"dataset.root={tmp_path}",
        "module": "dataset.factory=problems.own_parts.make_data",
    }
    place = [places[name]] if name in places else []
    with pytest.raises(UserError, match=r"^dataset\.validation=0: .*; give a (number|share)"):
        plan(f"dataset={name}", *place, "dataset.validation=0")


def test_numbers_that_leave_a_class_out() -> None:
    labels = np.array([-1.0, 1.0, 1.0, -1.0, -1.0, 1.0])
    for n in (1, 5):
        with pytest.raises(ValueError, match=rf"^dataset.validation={n}: out of range; give 2 to 4 of the 6 training "):
            validation_split(n, labels)
    with pytest.raises(ValueError, match=r"^dataset.validation=2: a class has one sample alone, .*; give null for"):
        validation_split(2, np.array([0, 1, 1, 1]))
    train, held_out = validation_split(2, labels)
    assert sorted(labels[held_out]) == [-1, 1]
    assert sorted([*train, *held_out]) == list(range(6))


@pytest.mark.parametrize("n", [240, 1000])
def test_all_ratings_cannot_be_held_out(n: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^dataset.validation={n}: one of the two sets of 240 training ratings would"
    ):
        LowRank(users=20, items=15, density=1.0, validation=n).load(2, 0, torch.float64)


def test_a_run_is_measured_on_them(run: Callable[..., Run]) -> None:
    words = ("dataset=breast_cancer", "model.hidden=[4]", "workers=2", "rounds=2", "eval_every=2")
    found = run(*words, "dataset.validation=200").metrics
    assert found["test_accuracy"].mul(200).round(6).mod(1).eq(0).all()
    assert run(*words).metrics["test_loss"].tolist() != found["test_loss"].tolist()
