"""Matrix factorisation, both forms, against NumPy, finite differences and alternating least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from problems.rating_world import LAM, RANK, SEED, N, Plain, problem, spread, world

from commexp.problems.datasets import Blocks, ByUser, Iid
from commexp.problems.ratings.factorisation import CHUNK, Factorisation
from commexp.seeding import generator

FORMS = ("items", "all")


def parts(travels: str) -> list[np.ndarray]:
    split = (ByUser() if travels == "items" else Iid()).split(world(), N, SEED)
    return [rows.numpy() for rows in split]


def tables(made: Factorisation, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The rows of users, none where they do not travel, and of items."""
    rows = x.view(-1, made.width).numpy()
    return rows[: len(rows) - len(made.item_counts)], rows[len(rows) - len(made.item_counts) :]


def expected(made: Factorisation, plain: Plain, x: torch.Tensor, mine: np.ndarray, workers: int) -> Any:
    users, items = tables(made, x)
    if len(users):
        loss, by_user, by_item = plain.gradient(users, items, mine, workers, whole_items=False)
        return loss, np.concatenate([by_user.ravel(), by_item.ravel()])
    loss, by_user, by_item = plain.gradient(plain.solved(items), items, mine, workers, whole_items=True)
    np.testing.assert_allclose(by_user[np.unique(plain.u[mine])], 0, atol=1e-9)  # they are at their best
    return loss, by_item.ravel()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("travels", FORMS)
def test_local_gradients_are_those_of_the_formula(travels: str, bias: bool, deterministic: bool) -> None:
    made = problem(travels, bias=bias, deterministic=deterministic)
    plain = Plain(world(), bias=bias)
    apart = spread(made)
    for x in (apart, apart[0].expand(N, -1)):
        for losses, grads in (made.local_gradient(x), made.loss_and_grad(x, made.batch(0))):
            for n, mine in enumerate(parts(travels)):
                loss, grad = expected(made, plain, x[n], mine, N)
                np.testing.assert_allclose(losses[n], loss, rtol=1e-10)
                np.testing.assert_allclose(grads[n], grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("travels", FORMS)
def test_f_is_the_mean_over_workers_however_the_ratings_are_split(travels: str) -> None:
    made = problem(travels)
    x = spread(made)[0] * (made.rated[:, None].expand(-1, made.width).flatten())
    loss, grad = made.training_gradient(x)
    losses, grads = made.local_gradient(x.expand(N, -1))
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-12)
    np.testing.assert_allclose(grads.mean(0), grad, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.training_loss(x), loss, rtol=1e-12)
    for other in (problem(travels, workers=5), problem("all", partition=Blocks(), workers=4)):
        if other.dim == made.dim:
            np.testing.assert_allclose(other.training_gradient(x)[0], loss, rtol=1e-12)
            np.testing.assert_allclose(other.local_gradient(x.expand(other.workers, -1))[0].mean(), loss, rtol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("travels", FORMS)
def test_gradients_are_finite_differences_of_losses(travels: str, bias: bool) -> None:
    made = problem(travels, bias=bias)
    x = spread(made)[0]
    _, grad = made.training_gradient(x)
    way = torch.randn(5, made.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for d in way:
        up, down = (made.training_gradient(x + sign * 1e-5 * d)[0] for sign in (1, -1))
        assert (up - down) / 2e-5 == pytest.approx(float(grad @ d), rel=1e-6, abs=1e-8)


def test_users_are_solved_for_one_by_one() -> None:
    made, plain = problem("items"), Plain(world())
    items = spread(made)[0].view(-1, made.width)
    users, same = made.factors(items)
    np.testing.assert_allclose(users.numpy(), plain.solved(items.numpy()), rtol=1e-8, atol=1e-10)
    assert same is items


def test_both_forms_have_one_f() -> None:
    """F of the items alone is that of both tables at the users' best, and so is its gradient by the items."""
    made, whole = problem("items"), problem("all")
    items = made.init(generator(3, "start")) * 5
    users, _ = made.factors(items.view(-1, made.width))
    loss, grad = made.training_gradient(items)
    loss_of_all, grad_of_all = whole.training_gradient(torch.cat([users.flatten(), items]))
    np.testing.assert_allclose(loss, loss_of_all, rtol=1e-12)
    np.testing.assert_allclose(grad, grad_of_all[users.numel() :], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(grad_of_all[: users.numel()], 0, atol=1e-12)


@pytest.mark.parametrize("travels", FORMS)
def test_batches_give_the_whole_gradient_on_average(travels: str) -> None:
    """One epoch of batches of one sample, of which each worker's own number divides all."""
    made = problem(travels, batch_size=1)
    x = spread(made)
    exact = made.local_gradient(x)[1]
    for n, pool in enumerate(made.pools):
        drawn = [made.batch(step) for step in range(len(pool))]
        assert sorted(int(picks.samples[n]) for picks in drawn) == sorted(pool.tolist())
        mean = torch.stack([made.loss_and_grad(x, picks)[1][n] for picks in drawn]).mean(0)
        np.testing.assert_allclose(mean, exact[n], rtol=1e-8, atol=1e-10)
    assert made.samples_per_step == 1
    assert made.samples == sum(map(len, made.pools))
    fresh, again = made.fresh(4, 7), made.fresh(4, 7)
    assert [len(own) for own in fresh.samples] == [7] * N
    assert all(torch.equal(a, b) for a, b in zip(fresh.samples, again.samples, strict=True))
    assert not torch.equal(fresh.samples[0], made.fresh(5, 7).samples[0])


@pytest.mark.parametrize("travels", FORMS)
def test_the_common_batch_is_the_same_for_all(travels: str) -> None:
    x = spread(problem(travels))
    for size in (None, 4):
        made = problem(travels, batch_size=size)
        losses, grads = made.common_gradient(x[0].expand(N, -1), 3)
        assert torch.equal(losses, losses[:1].expand(N))
        assert torch.equal(grads, grads[:1].expand(N, -1))
        few = problem(travels, batch_size=size, ids=[1])
        np.testing.assert_allclose(few.common_gradient(x[:1], 3)[1][0], grads[0], rtol=1e-9, atol=1e-12)
    made = problem(travels, batch_size=4)
    mean = sum(made.common_gradient(x[:1], step)[1][0] for step in range(1000)) / 1000
    exact = made.training_gradient(x[0])[1]
    assert float((mean - exact).norm() / exact.norm()) < 0.1


@pytest.mark.parametrize("travels", FORMS)
@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_workers_gradient_has_the_same_bits_wherever_it_is(
    travels: str, batch_size: int | None, dtype: torch.dtype
) -> None:
    given = {"batch_size": batch_size, "dtype": dtype, "deterministic": True}
    whole = problem(travels, **given)
    x = spread(whole).to(dtype)
    together = whole.loss_and_grad(x, whole.batch(2))
    for ids in ([0], [1], [2], [0, 1], [1, 2]):
        here = problem(travels, ids=ids, **given)
        for found, full in zip(here.loss_and_grad(x[ids], here.batch(2)), together, strict=True):
            assert torch.equal(found, full[ids])


def test_long_lists_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHUNK > 1000
    for travels in FORMS:
        made = problem(travels)
        x = spread(made)
        once, values = made.local_gradient(x)[1], made.evaluate(x[0])
        for module in ("factorisation", "all_factors", "item_factors"):
            monkeypatch.setattr(f"commexp.problems.ratings.{module}.CHUNK", 11)
        monkeypatch.setattr("commexp.problems.ratings.item_factors.SHORT", 1)
        np.testing.assert_allclose(made.local_gradient(x)[1], once, rtol=1e-9, atol=1e-12)
        assert made.evaluate(x[0]) == pytest.approx(values)
        monkeypatch.undo()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("travels", FORMS)
def test_metrics_are_those_of_predictions_one_by_one(travels: str, bias: bool) -> None:
    data = world()
    made, plain = problem(travels, bias=bias), Plain(data, bias=bias)
    x = spread(made)[0]
    users, items = (rows.copy() for rows in tables(made, x))
    items[~np.isin(np.arange(plain.items), plain.i)] = 0
    users = users if len(users) else plain.solved(items)
    users[~np.isin(np.arange(plain.users), plain.u)] = 0
    train = [plain.y[s] - plain.guess(users[plain.u[s]], items[plain.i[s]]) for s in range(plain.m)]
    asked = zip(data.test_x.users.tolist(), data.test_x.items.tolist(), data.test_y.tolist(), strict=True)
    test = [r - plain.mean - plain.guess(users[u], items[i]) for u, i, r in asked]
    found = made.evaluate(x)
    assert found == pytest.approx(
        {
            "train_loss": np.mean(np.square(train)),
            "objective": (np.sum(np.square(train)) + LAM * ((users**2).sum() + (items**2).sum())) / plain.m,
            "train_rmse": np.sqrt(np.mean(np.square(train))),
            "test_rmse": np.sqrt(np.mean(np.square(test))),
        }
    )
    strangers = (~torch.isin(data.test_x.users, data.train_x.users)) & (
        ~torch.isin(data.test_x.items, data.train_x.items)
    )
    assert strangers.any() or (~torch.isin(data.test_x.users, data.train_x.users)).any(), "nobody falls back on mu"


@pytest.mark.parametrize("travels", FORMS)
def test_the_start_is_small_and_the_generators(travels: str) -> None:
    made = problem(travels, start=0.1, rank=20)
    x = made.init(generator(0, "start"))
    rows = x.view(-1, 21)
    assert float(rows[made.rated, :20].std()) == pytest.approx(0.1, rel=0.15)
    assert float(rows[:, 20].abs().max()) == 0
    assert float(rows[~made.rated].abs().max()) == 0
    assert torch.equal(x, made.init(generator(0, "start")))
    assert not torch.equal(x, made.init(generator(1, "start")))


@pytest.mark.parametrize("travels", FORMS)
def test_alternating_least_squares_and_descent_come_to_rest_at_the_same_place(travels: str) -> None:
    """Where alternating least squares rests, the gradient is zero; descent from nearby comes back to it."""
    data = world()
    plain, made = Plain(data), problem(travels)
    items = problem("items").init(generator(0, "start")).view(-1, RANK + 1).numpy()
    turned = Plain(data)
    turned.u, turned.i, turned.users, turned.items = plain.i, plain.u, plain.items, plain.users
    for _ in range(3000):
        users = plain.solved(items)
        before, items = items, turned.solved(users)
        if np.abs(items - before).max() < 1e-13:
            break
    resting = torch.from_numpy(items if travels == "items" else np.concatenate([plain.solved(items), items])).flatten()
    lowest, gradient = made.training_gradient(resting)
    assert float(gradient.abs().max()) < 1e-9
    x = resting + 0.01 * spread(made)[0] * made.rated[:, None].expand(-1, made.width).flatten()
    assert made.training_gradient(x)[0] > lowest
    for _ in range(4000):
        gradient = made.training_gradient(x)[1]
        if float(gradient.abs().max()) < 1e-8:
            break
        x = x - 1.0 * gradient
    assert made.training_gradient(x)[0] == pytest.approx(lowest, rel=1e-9)
    assert float(made.training_gradient(x)[1].abs().max()) < 1e-6


def test_a_user_who_is_cut_in_two_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"^model.travels=items: the partition gives .* user number \d+ to several workers; give partition=by_",
    ):
        problem("items", partition=Iid())


REFUSED = {
    "rank=0: must": {"rank": 0},
    "travels=users: unknown; give items or all": {"travels": "users"},
    "lam=-1.0: must not be negative": {"lam": -1.0},
    "lam=0.0: the best fit of a user": {"lam": 0.0},
    "start=0.0: must be positive": {"start": 0.0},
}


@pytest.mark.parametrize("start", REFUSED)
def test_wrong_fields_are_refused(start: str) -> None:
    from commexp.problems.models import MatrixFactorisation

    with pytest.raises(ValueError, match="; give ") as refusal:
        MatrixFactorisation(**REFUSED[start])
    assert str(refusal.value).startswith(start)
    MatrixFactorisation(lam=0.0, travels="all")
