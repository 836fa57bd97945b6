"""Datasets as they are loaded, and how they are split."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from registry import options, plan

from commexp.problems import Data, ProblemContext, build_problem
from commexp.problems.datasets import ByClass, Digits, Dirichlet, FashionMNIST, Iid, Natural, RandomShares
from commexp.problems.feeds.base import Sampler
from commexp.problems.module_problem import ModuleProblem


def labelled(m: int = 1000, classes: int = 10) -> Data:
    return Data(torch.zeros(m, 1), torch.arange(m) % classes, classes=classes, source=torch.arange(m) % 125)


OF_RATINGS = {"by_user", "blocks"}  # see test_ratings.py


@pytest.mark.parametrize("name", sorted(set(options("partition")) - OF_RATINGS))
@pytest.mark.parametrize("workers", [1, 3, 8, 100])
def test_every_sample_goes_to_exactly_one_worker(name: str, workers: int) -> None:
    partition = plan(f"partition={name}").partition
    parts = partition.split(labelled(), workers, seed=0)
    assert len(parts) == workers
    assert all(len(p) for p in parts)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    again = partition.split(labelled(), workers, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    if name != "natural" and workers > 1:
        assert any(not torch.equal(a, b) for a, b in zip(parts, partition.split(labelled(), workers, 1), strict=True))


def test_iid_shares_are_even() -> None:
    assert {len(p) for p in Iid().split(labelled(1001), 4, 0)} == {250, 251}


def test_by_class_gives_few_classes_each() -> None:
    data = labelled()
    parts = ByClass(shards=2).split(data, 10, 0)
    assert max(len(data.train_y[p].unique()) for p in parts) <= 4
    assert np.mean([len(data.train_y[p].unique()) for p in parts]) <= 2.5


@pytest.mark.parametrize(("workers", "classes"), [(10, 2), (4, 3), (7, 4), (25, 1), (3, 10)])
def test_by_class_gives_exactly_so_many_classes(workers: int, classes: int) -> None:
    """And every class to equally many workers, give or take one, which share its samples evenly."""
    data = labelled()
    parts = ByClass(classes=classes).split(data, workers, 0)
    held = np.stack([np.bincount(data.train_y[p], minlength=10) for p in parts])
    assert (np.count_nonzero(held, axis=1) == classes).all()
    owners = np.count_nonzero(held, axis=0)
    assert owners.min() >= 1
    assert np.ptp(owners) <= 1
    for counts in held.T:
        assert np.ptp(counts[counts > 0]) <= 1
    other = ByClass(classes=classes).split(data, workers, 1)
    assert any(not torch.equal(a, b) for a, b in zip(parts, other, strict=True))


def test_classes_that_would_go_to_nobody_are_refused() -> None:
    for workers, classes, right in ((4, 2, "give 3 to 10"), (20, 11, "give 1 to 10")):
        with pytest.raises(ValueError, match=f"^partition.classes={classes}: {workers} workers .*; {right}$"):
            ByClass(classes=classes).split(labelled(), workers, 0)
    with pytest.raises(ValueError, match=r"^classes=0: must not be less than 1; give"):
        ByClass(classes=0)


def test_small_alpha_is_uneven_large_alpha_even() -> None:
    data = labelled(10_000)

    def spread(alpha: float) -> float:
        parts = Dirichlet(alpha).split(data, 5, 0)
        return float(np.std([float((data.train_y[p] == 0).float().mean()) for p in parts]))

    assert spread(0.1) > 5 * spread(1000.0)


def test_random_shares_have_the_ratio_asked_for() -> None:
    sizes = [len(p) for p in RandomShares(ratio=5.0).split(labelled(10_000), 8, 0)]
    assert 4.9 < max(sizes) / min(sizes) < 5.1


def test_natural_is_contiguous_where_the_data_are_not_split() -> None:
    parts = Natural().split(labelled(10), 2, 0)
    assert [p.tolist() for p in parts] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_digits_are_the_real_ones_and_the_test_set_is_held_out() -> None:
    data = Digits().load(8, 0, torch.float32)
    assert data.test_x is not None
    assert data.test_y is not None
    assert (len(data.train_x), len(data.test_x)) == (1437, 360)
    train = {hashlib.sha256(row.numpy().tobytes()).digest() for row in data.train_x}
    held_out = [hashlib.sha256(row.numpy().tobytes()).digest() for row in data.test_x]
    assert sum(h in train for h in held_out) == 0
    counts = torch.bincount(data.test_y)
    assert int(counts.max() - counts.min()) <= 3
    assert abs(float(data.train_x.mean())) < 1e-5


def write_fashion(folder: Path, train: int = 30) -> dict[str, str]:
    """Four files of the published format with a handful of images; returns their MD5 sums."""
    rng, sums = np.random.default_rng(0), {}
    for part, m in (("train", train), ("t10k", 10)):
        images = struct.pack(">IIII", 2051, m, 28, 28) + rng.integers(0, 256, (m, 28, 28), np.uint8).tobytes()
        labels = struct.pack(">II", 2049, m) + (np.arange(m) % 10).astype(np.uint8).tobytes()
        for name, raw in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
            packed = gzip.compress(raw)
            (folder / name).write_bytes(packed)
            sums[name] = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    return sums


def test_fashion_mnist_reads_the_published_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import FashionMNIST as Published

    sums = write_fashion(tmp_path)
    assert {name for name, _ in Published.resources} == set(sums)
    monkeypatch.setattr(Published, "resources", list(sums.items()))
    data = FashionMNIST(root=str(tmp_path)).load(2, 0, torch.float32)
    assert data.train_x.shape == (30, 1, 28, 28)
    assert data.test_y is not None
    assert data.test_y.tolist() == list(range(10))
    assert data.train_x.dtype == torch.uint8
    assert data.mean is not None
    assert data.std is not None
    normalised = (data.train_x / 255 - data.mean) / data.std
    assert float(normalised.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(normalised.std(correction=0)) == pytest.approx(1.0, abs=1e-5)

    damaged = tmp_path / "train-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"train-labels.* is damaged"):
        FashionMNIST(root=str(tmp_path)).load(2, 0, torch.float32)


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_where_debian_puts_it() -> None:
    data = FashionMNIST().load(2, 0, torch.float32)
    assert data.test_x is not None
    assert (len(data.train_x), len(data.test_x)) == (60_000, 10_000)


def test_sampler_sees_every_sample_once_an_epoch_and_forgets_nothing() -> None:
    parts = [torch.arange(10), torch.arange(10, 17)]
    sampler = Sampler(parts, [0, 1], batch_size=4, seed=3)
    seen = torch.cat([sampler.batch(t)[1] for t in range(7)])  # 28 draws: 4 epochs of 7
    assert all(sorted(seen[i : i + 7].tolist()) == parts[1].tolist() for i in range(0, 28, 7))
    fresh = Sampler(parts, [0, 1], batch_size=4, seed=3)
    assert torch.equal(fresh.batch(5), sampler.batch(5)), "the batch depends on what was drawn before"


def test_a_workers_batches_do_not_depend_on_where_it_lives() -> None:
    parts = [torch.arange(n * 10, n * 10 + 10) for n in range(4)]
    whole = Sampler(parts, range(4), 3, 0).batch(6)
    assert torch.equal(Sampler(parts[2:], [2, 3], 3, 0).batch(6), whole[2:])


def test_start_is_equal_for_equal_seeds_and_leaves_the_global_generator_alone() -> None:
    made = plan("model.width=8")
    state = torch.get_rng_state()
    data = made.dataset.load(8, 0, torch.float32)
    context = ProblemContext(made.partition.split(data, 8, 0), range(8), 4, 0, torch.device("cpu"), torch.float32)
    one, two = build_problem(made.model, data, context), build_problem(made.model, data, context)
    assert isinstance(one, ModuleProblem)
    a, b = (p.init(torch.Generator().manual_seed(5)) for p in (one, two))
    assert torch.equal(a, b)
    assert float(a.std()) > 0.01
    assert torch.equal(state, torch.get_rng_state())
