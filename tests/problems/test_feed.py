"""Batches: the same wherever a worker lives, however often and in whatever order they are asked for."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array
from torch import Tensor

from commexp.problems import Data
from commexp.problems.augment import Augment
from commexp.problems.base import ProblemContext
from commexp.problems.datasets.photos import MEAN, STD, Photos, window
from commexp.problems.feeds import Feed, InMemory, Streamed, make_feed
from commexp.problems.feeds.base import CHUNK, CHUNK_BYTES, VECTORS, Sampler
from commexp.problems.sparse_rows import SparseRows
from commexp.seeding import derive, generator

AUGMENT = Augment(crop=2, flip=True, cutout=3)
MEANS, STDS = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.3, 0.2, 0.1])


def images(m: int = 60, augment: Augment | None = AUGMENT) -> Data:
    g = generator(0, "pixels")
    x, y = torch.randint(256, (m + 10, 3, 8, 8), generator=g).to(torch.uint8), torch.arange(m + 10) % 10
    return Data(x[:m], y[:m], x[m:], y[m:], classes=10, mean=MEANS, std=STDS, augment=augment)


def context(
    m: int, ids: Sequence[int] = range(4), b: int | None = 3, dtype: torch.dtype = torch.float32
) -> ProblemContext:
    return ProblemContext(list(torch.arange(m).view(4, -1)), ids, b, 7, torch.device("cpu"), dtype)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """24 photos of different sizes, one of them grey and one a PNG with transparency."""
    folder, g = tmp_path_factory.mktemp("photos"), generator(0, "photos")
    paths = []
    for i in range(24):
        height, width = torch.randint(20, 60, (2,), generator=g).tolist()
        pixels = torch.randint(256, (height, width, 3), generator=g).to(torch.uint8).numpy()
        mode, name = {5: ("L", "jpg"), 6: ("RGBA", "png")}.get(i, ("RGB", "jpg"))
        paths.append(str(folder / f"{i}.{name}"))
        Image.fromarray(pixels).convert(mode).save(paths[-1])
    return paths


def photo_data(paths: list[str], loaders: int, augment: bool = True) -> Data:
    labels = torch.arange(len(paths)) % 3
    train, test = Photos(paths, labels, 16, augment, loaders), Photos(paths[:7], labels[:7], 16, False, loaders)
    return Data(train, labels, test, labels[:7], classes=3, mean=MEAN, std=STD)


def normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (x.double() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def equal(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_what_the_sampler_says_augmented_and_normalised(dtype: torch.dtype) -> None:
    data, s = images(), context(60, dtype=dtype)
    feed = make_feed(data, s)
    assert isinstance(feed, InMemory)
    assert (feed.samples, data.image_shape) == (60, (3, 8, 8))
    x, y = feed.batch(5)
    rows = Sampler(s.own, s.worker_ids, 3, 7).batch(5)
    assert x.shape == (4, 3, 3, 8, 8)
    assert x.dtype == dtype
    assert torch.equal(y, data.train_y[rows])
    for n in range(4):
        draws = AUGMENT.draw(generator(7, "augment", n, 5), 3, 8, 8)
        cropped = Augment(crop=2, flip=True).apply(data.train_x[rows[n]], draws)  # black is 0 before normalisation
        expected = Augment(cutout=3).apply(normal(cropped, MEANS, STDS), draws)  # the mean is 0 after it
        assert torch.allclose(x[n].double(), expected, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_floats_that_say_how_they_were_normalised_give_the_same_batch_as_bytes() -> None:
    raw = images()
    data = Data(normal(raw.train_x, MEANS, STDS), raw.train_y, mean=MEANS, std=STDS, augment=AUGMENT)
    one, two = (make_feed(d, context(60, dtype=torch.float64)).batch(2)[0] for d in (raw, data))
    assert torch.allclose(one, two, atol=1e-12)


def test_feature_vectors_pass_through() -> None:
    data = Data(torch.arange(40.0).view(20, 2), torch.arange(20.0))
    assert data.image_shape is None
    feed = make_feed(data, context(20))
    x, y = feed.batch(0)
    assert x.shape == (4, 3, 2)
    assert torch.equal(x[..., 0], 2 * y)
    assert [c[0].shape for c in feed.train(7)] == [(7, 2)]
    assert list(feed.test()) == []


def sparse(m: int, d: int) -> SparseRows:
    """Seven entries a row."""
    rng = np.random.default_rng(0)
    columns = np.concatenate([np.sort(rng.choice(d, 7, replace=False)) for _ in range(m)])
    return SparseRows(csr_array((rng.standard_normal(7 * m), columns, np.arange(0, 7 * m + 1, 7)), shape=(m, d)))


def test_sparse_rows_are_picked_and_unpacked() -> None:
    x = sparse(20, 9)
    whole = x.dense(torch.float64)
    assert (x.shape, x.ndim, len(x)) == ((20, 9), 2, 20)
    assert (whole.shape, int((whole != 0).sum())) == ((20, 9), 140)
    rows = torch.tensor([7, 3, 3, 19])
    assert torch.equal(x[rows].dense(torch.float32), whole[rows].float())
    assert x[rows[:0]].dense(torch.float32).shape == (0, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_rows_give_the_same_batches_whether_unpacked_or_not(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = sparse(40, 9), torch.arange(40)
    data, s = Data(x, y, x[y[:11]], y[:11]), context(40, dtype=dtype)
    dense = make_feed(Data(x.dense(torch.float64), y, x.dense(torch.float64)[:11], y[:11]), s)
    few = make_feed(data, s)
    monkeypatch.setattr("commexp.problems.feeds.base.DENSE_BYTES", 40 * 9 * dtype.itemsize - 1)
    many = make_feed(data, s)
    assert isinstance(few, InMemory)
    assert isinstance(few.train_x, Tensor)
    assert isinstance(many, InMemory)
    assert isinstance(many.train_x, SparseRows)
    assert isinstance(many.test_x, Tensor), "the test set is small enough"
    monkeypatch.setattr("commexp.problems.feeds.base.CHUNK_BYTES", 16 * 9 * dtype.itemsize)
    for feed in (few, many):
        for step in (0, 5, 2):
            assert equal(feed.batch(step), dense.batch(step))
            assert equal(feed.common(step), dense.common(step))
        for mine, expected in ((feed.train(33), dense.train(33)), (feed.test(), dense.test())):
            for a, b in zip(mine, expected, strict=True):
                assert a[0].dtype == dtype
                assert equal(a, b)


def test_wide_sparse_rows_are_never_unpacked_as_a_whole() -> None:
    """As wide as RCV1: 378 MB with all zeros."""
    m, d = 2000, 47_236
    feed = make_feed(Data(sparse(m, d), torch.arange(m)), context(m))
    assert isinstance(feed, InMemory)
    assert isinstance(feed.train_x, SparseRows)
    tracemalloc.start()
    try:
        assert feed.batch(0)[0].shape == (4, 3, d)
        assert feed.common(0)[0].shape == (3, d)
        assert sum(len(x) for x, _ in feed.train(400)) == 400
        assert tracemalloc.get_traced_memory()[1] < 4 * CHUNK_BYTES  # in float64 first, and one chunk beside the next
    finally:
        tracemalloc.stop()


def feeds(kind: str, paths: list[str], ids: Sequence[int]) -> Feed:
    return (
        make_feed(images(), context(60, ids)) if kind == "memory" else make_feed(photo_data(paths, 0), context(24, ids))
    )


@pytest.mark.parametrize("kind", ["memory", "streamed"])
def test_a_workers_batch_does_not_depend_on_where_it_lives_or_on_what_was_asked_before(
    kind: str, photos: list[str]
) -> None:
    whole, first, second = (feeds(kind, photos, ids) for ids in (range(4), [0, 1], [2, 3]))
    state = torch.get_rng_state()
    for step in (0, 1, 9, 3):
        x, y = whole.batch(step)
        assert equal((x[:2], y[:2]), first.batch(step))
        assert equal((x[2:], y[2:]), second.batch(step))
        assert equal((x, y), feeds(kind, photos, range(4)).batch(step))
        assert equal(whole.common(step), second.common(step))
    assert not torch.equal(whole.batch(1)[0], whole.batch(2)[0])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["memory", "streamed"])
def test_the_common_batch_comes_from_everyone_unaugmented(kind: str, photos: list[str]) -> None:
    feed = feeds(kind, photos, [1])
    everything = torch.cat([x for x, _ in feed.train(None)])
    seen = set()
    for step in range(30):
        x, y = feed.common(step)
        assert (len(x), len(y)) == (3, 3)
        place = [(everything == one).flatten(1).all(1).nonzero().item() for one in x]
        seen.update(place)
    assert len(seen) > 0.6 * feed.samples


@pytest.mark.parametrize("image", [False, True])
def test_chunks_are_in_order_small_enough_and_evenly_spread(image: bool) -> None:
    """At most 512 images, or 8,192 feature vectors."""
    assert (CHUNK, VECTORS) == (512, 8192)
    most = CHUNK if image else VECTORS
    m = 2 * most + 40
    one = (1, 1, 1) if image else (1,)
    data = Data(torch.arange(float(m)).view(-1, *one), torch.arange(m), torch.zeros(5, *one), torch.arange(5))
    feed = make_feed(data, context(m))
    for at_most in (None, m, m + 1):
        chunks = list(feed.train(at_most))
        assert [len(y) for _, y in chunks] == [most, most, 40]
        assert torch.equal(torch.cat([y for _, y in chunks]), torch.arange(m))
        assert torch.equal(torch.cat([x for x, _ in chunks]), data.train_x)
    for at_most in (1, 2, 100, m - 1):
        y = torch.cat([y for _, y in feed.train(at_most)])
        assert len(y.unique()) == at_most
        assert int(y[0]) == 0
        gaps = y.diff()
        assert at_most == 1 or int(gaps.max() - gaps.min()) <= 1
    assert [y.tolist() for _, y in feed.test()] == [[0, 1, 2, 3, 4]]


def test_chunks_of_large_images_are_smaller() -> None:
    large = Data(torch.zeros(9, 3, 1300, 1300, dtype=torch.uint8), torch.arange(9), mean=MEANS, std=STDS)
    parts = [torch.arange(9)]
    chunks = list(make_feed(large, ProblemContext(parts, [0], 1, 0, torch.device("cpu"), torch.float32)).train(None))
    assert len(chunks) > 1
    assert max(x.numel() * 4 for x, _ in chunks) <= CHUNK_BYTES


def test_evaluation_is_not_augmented() -> None:
    data = images()
    (x, y), *rest = make_feed(data, context(60)).train(None)
    assert not rest
    assert torch.allclose(x.double(), normal(data.train_x, MEANS, STDS), atol=1e-5)
    (x, y), *rest = make_feed(data, context(60)).test()
    assert torch.allclose(x.double(), normal(data.test_x, MEANS, STDS), atol=1e-5)
    assert torch.equal(y, data.test_y)


@pytest.mark.parametrize("kind", ["memory", "streamed"])
def test_a_workers_own_samples_in_order_unaugmented(kind: str, photos: list[str]) -> None:
    feed = feeds(kind, photos, [1, 3])
    everything = list(feed.train(None))
    x, y = torch.cat([x for x, _ in everything]), torch.cat([y for _, y in everything])
    each = feed.samples // 4
    for w, n in enumerate((1, 3)):
        chunks = list(feed.own(w))
        assert torch.equal(torch.cat([x for x, _ in chunks]), x[n * each : (n + 1) * each])
        assert torch.equal(torch.cat([y for _, y in chunks]), y[n * each : (n + 1) * each])


def test_own_samples_come_in_chunks_and_as_the_partition_says() -> None:
    m = 600
    data = Data(torch.arange(float(m)).view(-1, 1, 1, 1), torch.arange(m))
    parts = [torch.arange(m - 1, 19, -1), torch.arange(20)]
    feed = make_feed(data, ProblemContext(parts, range(2), 3, 7, torch.device("cpu"), torch.float32))
    assert [len(y) for _, y in feed.own(0)] == [CHUNK, 580 - CHUNK]
    assert torch.equal(torch.cat([y for _, y in feed.own(0)]), parts[0])
    ((x, y),) = feed.own(1)
    assert torch.equal(y, parts[1])
    assert torch.equal(x.flatten(), parts[1].float())


@pytest.mark.parametrize("kind", ["memory", "streamed"])
def test_fresh_samples_are_drawn_with_replacement_within_each_workers_part(kind: str, photos: list[str]) -> None:
    whole, first, second = (feeds(kind, photos, ids) for ids in (range(4), [0, 1], [2, 3]))
    everything = torch.cat([x for x, _ in whole.train(None)])
    labels = torch.cat([y for _, y in whole.train(None)])
    each, size = whole.samples // 4, 3 * (whole.samples // 4)
    state = torch.get_rng_state()
    for step in (4, 0):
        x, y = whole.fresh(step, size)
        assert (x.shape, y.shape) == ((4, size, *everything.shape[1:]), (4, size))
        assert equal((x[:2], y[:2]), first.fresh(step, size)), "it depends on where a worker lives"
        assert equal((x[2:], y[2:]), second.fresh(step, size))
        assert equal((x, y), feeds(kind, photos, range(4)).fresh(step, size)), "it depends on what was asked before"
        for n in range(4):
            own, own_labels = everything[n * each : (n + 1) * each], labels[n * each : (n + 1) * each]
            found = [(own == one).flatten(1).all(1).nonzero().flatten().tolist() for one in x[n]]
            places = [place for (place,) in found]  # of this part, and as it is: not augmented
            assert torch.equal(y[n], own_labels[places])
            assert len(set(places)) > each // 2
            assert max(places.count(place) for place in places) > 1, "more than there are, so some come again"
            assert max(places.count(place) for place in places) < size / 2
            assert places != sorted(places)
        assert len({str(row.tolist()) for row in y}) > 1, "each worker has draws of its own"
    assert not torch.equal(whole.fresh(0, 5)[0], whole.fresh(1, 5)[0])
    assert not torch.equal(whole.fresh(0, 3)[0], feeds(kind, photos, range(4)).batch(0)[0])
    assert torch.equal(state, torch.get_rng_state())


def test_fresh_samples_come_from_the_whole_part_evenly() -> None:
    data = Data(torch.arange(40.0).view(-1, 1), torch.arange(40))
    feed = make_feed(data, context(40))
    _, y = feed.fresh(0, 20_000)
    for n in range(4):
        counts = torch.bincount(y[n] - 10 * n, minlength=10)
        assert counts.shape == (10,)
        assert float((counts / 2000 - 1).abs().max()) < 0.1  # 4.5 standard deviations


def test_photos_are_the_same_however_many_processes_decode_them(photos: list[str]) -> None:
    none, two = (make_feed(photo_data(photos, loaders), context(24, b=5)) for loaders in (0, 2))
    assert isinstance(two, Streamed)
    state = torch.get_rng_state()
    for step in (0, 1, 2, 7, 8, 3):  # 7 and 3 begin anew
        assert equal(none.batch(step), two.batch(step))
    assert equal(none.common(4), two.common(4))
    for chunks in ([*none.train(11)], [*none.test()]), ([*two.train(11)], [*two.test()]):
        assert [len(y) for part in chunks for _, y in part] == [11, 7]
    for a, b in zip([*none.train(None), *none.test()], [*two.train(None), *two.test()], strict=True):
        assert equal(a, b)
    assert equal(none.batch(4), two.batch(4)), "the evaluation has moved the training batches"
    assert torch.equal(state, torch.get_rng_state())


def test_loader_processes_end_with_their_feed(photos: list[str]) -> None:
    """Also where the feed is part of a cycle that only the garbage collector undoes."""
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        feed = make_feed(photo_data(photos, 2), context(24))
        feed.batch(0)
        feed.common(0)
        half_used = feed.train(None)
        next(half_used)
        assert set(multiprocessing.active_children()) - before
        del half_used
        cycle: list[object] = [feed]
        cycle.append(cycle)
        del feed, cycle
        start = time.monotonic()
        gc.collect()
        assert time.monotonic() - start < 4
        assert not set(multiprocessing.active_children()) - before
    finally:
        gc.enable()


@pytest.mark.parametrize("augment", [True, False])
def test_a_photo_is_as_read_by_hand(photos: list[str], augment: bool) -> None:
    data, s = photo_data(photos, 0, augment), context(24)
    x, y = make_feed(data, s).batch(6)
    rows = Sampler(s.own, s.worker_ids, 3, 7).batch(6)
    assert torch.equal(y, data.train_y[rows])
    for n in range(4):
        for position, index in enumerate(rows[n].tolist()):
            seed = derive(7, "augment", n, 6, position) if augment else None
            pixels = data.train_x.read(index, seed)
            assert torch.allclose(x[n, position].double(), normal(pixels, MEAN, STD), atol=1e-5)


def test_a_photo_that_is_not_augmented_is_its_centre(photos: list[str]) -> None:
    from torchvision.transforms import v2

    data = photo_data(photos, 0)
    usual = v2.Compose([v2.Resize(round(16 * 256 / 224)), v2.CenterCrop(16), v2.PILToTensor()])
    for i, path in enumerate(photos):
        with Image.open(path) as file:
            assert torch.equal(data.train_x.read(i, None), usual(file.convert("RGB")))
    assert data.train_x.shape == (24, 3, 16, 16)
    assert data.image_shape == (3, 16, 16)
    assert (len(data.train_x), data.train_x.path(6)) == (24, photos[6])


def test_windows_are_as_torchvision_draws_them() -> None:
    """The same distribution, not the same numbers: means of area and shape, and how often a side is cut."""
    from torchvision.transforms import RandomResizedCrop

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        n = 1500
        for height, width in ((100, 100), (40, 120)):
            image = torch.zeros(3, height, width)
            drawn = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
            expected = torch.tensor(drawn).double()
            ours = torch.tensor([window(generator(0, "w", i), height, width) for i in range(n)]).double()
            assert (ours[:, 0] + ours[:, 2] <= height).all()
            assert (ours[:, 1] + ours[:, 3] <= width).all()
            error = (expected.var(0) / n + ours.var(0) / n).sqrt()
            assert ((ours.mean(0) - expected.mean(0)).abs() < 4.5 * error + 0.6).all()  # they round elsewhere
            assert ((ours.std(0) - expected.std(0)).abs() < 0.1 * expected.std(0) + 0.5).all()
    assert window(generator(0, "w"), 1, 100) == (0, 49, 1, 1)  # nothing fits: the centre


def test_about_half_of_the_photos_are_mirrored(tmp_path: Path) -> None:
    left_bright = torch.arange(200, 0, -5).to(torch.uint8).expand(40, 40).unsqueeze(2).repeat(1, 1, 3).numpy()
    path = str(tmp_path / "one.png")
    Image.fromarray(left_bright).save(path)
    one = Photos([path], torch.tensor([0]), 8, True, 0)
    mirrored = [bool(x[0, 4, 0] < x[0, 4, 7]) for x in (one.read(0, seed) for seed in range(400))]
    assert 150 < sum(mirrored) < 250
    assert torch.equal(one.read(0, 3), one.read(0, 3))


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_damaged_photo_is_named_in_one_line(photos: list[str], tmp_path: Path, loaders: int) -> None:
    path = tmp_path / "one.jpg"
    path.write_bytes(b"no image")
    data = photo_data([*photos[:-1], str(path)], loaders)
    feed = make_feed(data, ProblemContext([torch.arange(24)], [0], 24, 0, torch.device("cpu"), torch.float32))
    with pytest.raises(ValueError, match=r"^dataset: .*one.jpg cannot be read as an image \([^\n]*\); get it anew$"):
        feed.batch(0)


SCRIPT = """
import sys, torch
from commexp.problems import Data
from commexp.problems.base import ProblemContext
from commexp.problems.datasets.photos import MEAN, STD, Photos
from commexp.problems.feeds import make_feed
y = torch.zeros(12, dtype=torch.long)
data = Data(Photos([sys.argv[1]] * 12, y, 8, True, 1), y, mean=MEAN, std=STD)
feed = make_feed(data, ProblemContext([torch.arange(12)], [0], 4, 0, torch.device("cpu"), torch.float32))
print(feed.batch(0)[0].shape)
"""


def test_a_process_ends_in_peace_with_photos_on_their_way(photos: list[str]) -> None:
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", SCRIPT, photos[0]], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "torch.Size([1, 4, 3, 8, 8])\n"
    assert time.monotonic() - start < 20


def test_what_cannot_be_fed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size=null: .*; give a number"):
        make_feed(images(), context(60, b=None))
    with pytest.raises(ValueError, match="train_x: uint8 images or Photos without mean and std"):
        Data(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4))
    with pytest.raises(ValueError, match="augment: acts on image tensors"):
        Data(torch.zeros(4, 3), torch.zeros(4), augment=AUGMENT)
