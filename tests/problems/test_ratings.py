"""Made up ratings, and how ratings are split over workers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from commexp.config.messages import UserError
from commexp.problems import Data, Partition
from commexp.problems.datasets import Blocks, ByUser, Digits, Iid, LowRank, Natural
from commexp.problems.ratings.data import Ratings
from commexp.run_folder import Run
from commexp.seeding import numpy_generator

SHORT = ("dataset=ratings", "dataset.users=40", "dataset.items=30", "rounds=4", "eval_every=2")


def made(seed: int = 0, **fields: float) -> Data:
    data = LowRank(**fields).load(4, seed, torch.float64)  # type: ignore[arg-type]
    assert isinstance(data.train_x, Ratings)
    return data


def test_ratings_are_of_few_factors() -> None:
    """Of all pairs, without noise: two biases and the inner products make rank + 2."""
    data = made(users=30, items=20, rank=3, density=1.0, noise=0.0)
    table = np.full((30, 20), np.nan)
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        table[x.users, x.items] = y
    assert np.linalg.matrix_rank(table, tol=1e-9) == 5
    assert (len(data.train_x), len(data.test_x)) == (480, 120)


def test_noise_density_and_variance_are_as_asked() -> None:
    exact, noisy = (made(users=200, items=150, density=0.5, noise=noise) for noise in (0.0, 0.4))
    assert torch.equal(exact.train_x.users, noisy.train_x.users)
    assert float((noisy.train_y - exact.train_y).std()) == pytest.approx(0.4, rel=0.05)
    assert len(exact.train_x) + len(exact.test_x) == 15_000
    pairs = torch.cat([exact.train_x.users * 150 + exact.train_x.items, exact.test_x.users * 150 + exact.test_x.items])
    assert len(pairs.unique()) == 15_000
    assert float(exact.train_y.var()) == pytest.approx(1 + 2 * 0.09, rel=0.25)
    assert float(exact.train_y.mean()) == pytest.approx(3.5, abs=0.2)


def test_ratings_follow_from_the_seed_alone() -> None:
    first, again, other = made(), LowRank().load(9, 0, torch.float32), made(seed=1)
    assert torch.equal(first.train_x.items, again.train_x.items)
    assert torch.equal(first.train_y.float(), again.train_y)
    assert not torch.equal(first.train_x.items, other.train_x.items)


@pytest.mark.parametrize("workers", [1, 4, 7])
def test_by_user_gives_whole_users_and_even_shares(workers: int) -> None:
    data = made()
    parts = ByUser().split(data, workers, 0)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(data.train_x)))
    owners = [set(data.train_x.users[rows].tolist()) for rows in parts]
    assert sum(map(len, owners)) == len(data.train_x.users.unique()) == len(set.union(*owners))
    sizes = [len(rows) for rows in parts]
    assert max(sizes) - min(sizes) <= int(torch.bincount(data.train_x.users).max())
    assert all(torch.equal(a, b) for a, b in zip(parts, ByUser().split(data, workers, 0), strict=True))


@pytest.mark.parametrize(
    ("workers", "users", "groups"), [(8, None, 2), (9, None, 3), (7, None, 1), (8, 4, 4), (8, 8, 8)]
)
def test_blocks_are_a_grid(workers: int, users: int | None, groups: int) -> None:
    data = made()
    parts = Blocks(users).split(data, workers, 0)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(data.train_x)))
    columns = workers // groups
    for axis, same in (("users", lambda n: n // columns), ("items", lambda n: n % columns)):
        ids = getattr(data.train_x, axis)
        found = torch.full((int(ids.max()) + 1,), -1)
        for n, rows in enumerate(parts):
            group = found[ids[rows]]
            assert ((group == -1) | (group == same(n))).all(), axis
            found[ids[rows]] = same(n)
    assert max(map(len, parts)) < 1.2 * min(map(len, parts))


def test_very_small_ones_can_be_split_in_blocks() -> None:
    """Blocks without a rating take one of another block."""
    data = made(users=6, items=6, density=0.4)
    for groups in (None, 9):
        assert all(len(rows) for rows in Blocks(groups).split(data, 9, 0))


@pytest.mark.parametrize(
    ("partition", "workers", "start"),
    [
        (ByUser(), 41, "workers=41: more workers than the 40 users with ratings; give fewer"),
        (Blocks(3), 8, "partition.users=3: does not divide workers=8; give"),
    ],
)
def test_splits_that_cannot_be_are_refused(partition: Partition, workers: int, start: str) -> None:
    data = made(users=40, items=30, density=1.0)
    with pytest.raises(ValueError, match="; give") as refusal:
        partition.split(data, workers, 0)
    assert str(refusal.value).startswith(start)


@pytest.mark.parametrize("partition", [ByUser(), Blocks()])
def test_what_is_no_rating_cannot_be_split_by_users(partition: Partition) -> None:
    with pytest.raises(ValueError, match=r"^partition=(by_user|blocks): the data are no ratings; give partition=iid"):
        partition.shares(Digits().load(2, 0, torch.float32), 2, numpy_generator(0, "partition"))


@pytest.mark.parametrize("partition", [Iid(), Natural()])
def test_ratings_can_be_split_anyhow(partition: Partition) -> None:
    data = made()
    assert sorted(torch.cat(partition.split(data, 5, 0)).tolist()) == list(range(len(data.train_x)))


@pytest.mark.parametrize(
    ("field", "start"),
    [
        ({"users": 0}, "users=0: must not be less than 1; "),
        ({"rank": 0}, "rank=0: must not be less than 1; "),
        ({"density": 0.0}, "density=0.0: out of range; "),
        ({"noise": -1.0}, "noise=-1.0: must not be negative; "),
        ({"test": 0.0}, "test=0.0: out of range; "),
    ],
)
def test_wrong_fields_are_refused(field: dict[str, float], start: str) -> None:
    with pytest.raises(ValueError, match="; give") as refusal:
        LowRank(**field)  # type: ignore[arg-type]
    assert str(refusal.value).startswith(start)
    with pytest.raises(ValueError, match=r"^users=0: must not be less than 1; "):
        Blocks(0)


MISFITS = {
    "dataset=ratings partition=iid": "model.travels=items: the partition gives the ratings of user",
    "dataset=ratings model=linear_regression batch_size=null": "model=linear_regression: needs feature vectors",
    "dataset=ratings model=logistic_regression": "model=logistic_regression: needs feature vectors",
    "dataset=ratings model=mlp": "model=MLP: needs labelled samples",
    "dataset=ratings model=cnn": "model=CNN: needs labelled images",
    "model=matrix_factorisation": "model=matrix_factorisation: needs ratings; give dataset=ratings,",
    "dataset=ratings partition=dirichlet": "partition=dirichlet: the data have no classes",
    "dataset=digits partition=by_user": "partition=by_user: the data are no ratings",
    "dataset=ratings workers=301": "workers=301: more workers than the 300 users",
}


@pytest.mark.parametrize("words", MISFITS)
def test_pairs_that_make_no_sense_are_refused(words: str, run: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match="; ") as refusal:
        run(*words.split())
    assert str(refusal.value).startswith(MISFITS[words])


METHODS = [
    "algo=localsgd", "algo=mgrawa", "algo=dpsgd", "algo=choco", "algo=deepstorm", "algo=proxgt_sr_e prox=l1",
    "algo=gradient_coding", "algo=topk compress.k=0.1", "algo=sgd compress=powersgd", "batch_size=null",
]  # fmt: skip


@pytest.mark.parametrize("travels", ["items", "all"])
@pytest.mark.parametrize("method", METHODS)
def test_methods_of_every_kind_run_on_it(method: str, travels: str, run: Callable[..., Run]) -> None:
    result = run(*SHORT, f"model.travels={travels}", *method.split())
    assert result.status == "completed"
    assert {"train_loss", "train_rmse", "test_rmse"} <= set(result.metrics)
    assert np.isfinite(result.metrics["test_rmse"]).all()


@pytest.mark.parametrize("travels", ["items", "all"])
def test_a_run_that_diverges_says_so(travels: str, run: Callable[..., Run]) -> None:
    result = run(*SHORT, f"model.travels={travels}", "algo.lr=1e9", "rounds=60")
    assert result.status == "diverged"


def test_it_learns_with_its_presets(run: Callable[..., Run]) -> None:
    """The noise of 0.3 is a bound for the error."""
    found = {form: run("dataset=ratings", f"model.travels={form}", figures=True) for form in ("items", "all")}
    for form, result in found.items():
        assert result.summary["test_rmse"] < 0.4, form
        assert result.summary["best_test_rmse"] <= result.summary["test_rmse"]
        assert "| test RMSE" in (result.folder / "summary.md").read_text(encoding="utf-8")
    assert found["items"].summary["parameters"] * 2.5 == found["all"].summary["parameters"]
