"""What the sum over those that answer is: on average for gradients that are scaled, always for those that are coded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pytest

from commexp.allocations import (
    All,
    Allocation,
    Assignment,
    Cyclic,
    Design,
    FractionalRepetition,
    Random,
    Single,
    decoding,
    scaled,
)

J = 3


def gradients(M: int) -> np.ndarray:
    return np.random.default_rng(M).standard_normal((M, J)) + 0.5


def patterns(N: int, p: float) -> Iterator[tuple[float, np.ndarray]]:
    """Every set of workers that answer, with its probability."""
    for answered in product((False, True), repeat=N):
        alive = np.array(answered)
        yield float((1 - p) ** alive.sum() * p ** (~alive).sum()), alive


def moments(sent: np.ndarray, p: float) -> tuple[np.ndarray, float]:
    """Mean [J] and variance (summed over the coordinates) of the sum over those that answer, by enumeration."""
    sums = [(weight, sent[alive].sum(axis=0)) for weight, alive in patterns(len(sent), p)]
    mean: np.ndarray = np.sum([w * x for w, x in sums], axis=0)
    return mean, float(sum(w * np.sum((x - mean) ** 2) for w, x in sums))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(
    "allocation", [Single(), All(), Random(2, subsets=4), Cyclic(2), Design(2, subsets=3), Cyclic(3, subsets=9)]
)
def test_unbiased_and_the_uncoded_variance(allocation: Allocation, p: float) -> None:
    """E = grad F; Var = p (1-p) sum_i ||l_i||^2, whatever the allocation."""
    N = 4 if isinstance(allocation, Design) else 5
    held = allocation.allocation(N, 0)
    grads = gradients(held.subsets)
    sent = scaled(held, p) @ grads
    mean, variance = moments(sent, p)
    assert mean == pytest.approx(grads.sum(axis=0), abs=1e-12)
    assert variance == pytest.approx(p * (1 - p) * np.sum(sent**2), abs=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize(
    ("allocation", "N"), [(All(), 5), (Design(2, subsets=3), 4), (Design(4, subsets=7), 8), (Cyclic(2), 6)]
)
def test_the_variance_under_exact_balance(allocation: Allocation, N: int, p: float) -> None:
    """p/(1-p) [||grad F||^2/N + sum_k (1/d_k - 1/N) ||grad f_k||^2], and something else without balance."""
    held = allocation.allocation(N, 0)
    grads = gradients(held.subsets)
    _, variance = moments(scaled(held, p) @ grads, p)
    own = np.sum((1 / held.copies - 1 / N) * np.sum(grads**2, axis=1))
    expected = p / (1 - p) * (np.sum(grads.sum(axis=0) ** 2) / N + own)
    assert (held.balance.largest < 1e-12) == (variance == pytest.approx(expected, rel=1e-12))
    assert (held.balance.largest < 1e-12) == (not isinstance(allocation, Cyclic))


@pytest.mark.parametrize("allocation", [Single(), Random(2), All()])
def test_the_variance_with_one_bit(allocation: Allocation) -> None:
    """(1-p) N J B^2 - (1-p)^2 sum_i ||l_i||^2, each coordinate of each worker +B, -B or missing; unbiased."""
    N, p = 5, 0.3
    held = allocation.allocation(N, 1)
    grads = gradients(N)
    sent = scaled(held, p) @ grads
    B = 1.5 * np.abs(sent).max()
    mean, variance = np.zeros(J), 0.0
    for j in range(J):  # the coordinates' variances add up, however they depend on one another
        up = 0.5 + sent[:, j] / (2 * B)
        chances = np.stack([np.full(N, p), (1 - p) * (1 - up), (1 - p) * up])
        outcomes = np.array(list(product(range(3), repeat=N)))
        weights = chances[outcomes, np.arange(N)].prod(axis=1)
        sums = B * np.array([0, -1, 1])[outcomes].sum(axis=1)
        assert weights.sum() == pytest.approx(1)
        mean[j] = weights @ sums
        variance += float(weights @ (sums - mean[j]) ** 2)
    assert mean == pytest.approx(grads.sum(axis=0), abs=1e-12)
    assert variance == pytest.approx((1 - p) * N * J * B**2 - (1 - p) ** 2 * np.sum(sent**2), rel=1e-12)


KINDS = {"fractional": FractionalRepetition, "cyclic": Cyclic}
CODES = [("fractional", 1), ("fractional", 2), ("fractional", 3), *(("cyclic", d) for d in (1, 2, 3, 4))]


def pattern(N: int, gone: tuple[int, ...]) -> np.ndarray:
    answered = np.ones(N, dtype=bool)
    answered[list(gone)] = False
    return answered


@pytest.mark.parametrize(("kind", "d"), CODES)
def test_any_s_stragglers_are_survived(kind: str, d: int) -> None:
    N = 6
    B, grads = KINDS[kind](d).code(N, 0), gradients(N)
    cls = FractionalRepetition if kind == "fractional" else Cyclic
    assert ((B != 0) == cls(d).assign(N, 0)).all()
    assert B.dtype == np.float64
    for missing in range(d):
        for gone in combinations(range(N), missing):
            answered = pattern(N, gone)
            a = decoding(B, answered)
            assert a is not None
            assert (a[~answered] == 0).all()
            assert a @ B == pytest.approx(np.ones(N), abs=1e-8)
            assert a @ (B @ grads) == pytest.approx(grads.sum(axis=0), abs=1e-8)


@pytest.mark.parametrize(("kind", "d"), CODES)
def test_one_straggler_more_is_too_many(kind: str, d: int) -> None:
    """For the cyclic code whoever it is, for the fractional one where a group is gone."""
    N = 6
    B = KINDS[kind](d).code(N, 0)
    for gone in combinations(range(N), d):
        lost = kind == "cyclic" or len({n // d for n in gone}) == 1
        assert (decoding(B, pattern(N, gone)) is None) == lost
    assert decoding(B, np.zeros(N, dtype=bool)) is None


def test_a_large_code_is_decoded() -> None:
    N, d = 100, 10
    rng = np.random.default_rng(0)
    for seed in range(3):
        B = Cyclic(d).code(N, seed)
        gone = rng.choice(N, d - 1, replace=False)
        for missing in (gone, gone[:3], np.arange(d - 1)):
            a = decoding(B, pattern(N, tuple(missing.tolist())))
            assert a is not None
            assert np.abs(a @ B - 1).max() < 1e-9


def test_the_seed_gives_the_code() -> None:
    made = [Cyclic(3).code(6, seed) for seed in (0, 0, 1)]
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any()
    assert (FractionalRepetition(3).code(6, 0) == FractionalRepetition(3).code(6, 1)).all()
    assert Cyclic(4).code(4, 0) == pytest.approx(np.ones((4, 4)))


def test_what_does_not_fit_is_refused() -> None:
    for p in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"^p={p}: out of range; give a probability in \[0, 1\)"):
            scaled(Assignment(np.ones((2, 2))), p)
    for kind, workers, d, says in (
        ("fractional", 6, 4, "workers=6: not a multiple of d=4"),
        ("cyclic", 6, 7, "d=7: more copies than the 6 workers"),
        ("cyclic", 6, 0, "d=0: must not be less than 1"),
    ):
        with pytest.raises(ValueError, match=f"^{says}"):
            KINDS[kind](d).code(workers, 0)
    for allocation, says in (
        (Random(), "allocation: it has no exact code; give allocation=fractional or cyclic"),
        (Cyclic(subsets=12), "subsets=12: the cyclic code has as many as workers"),
    ):
        with pytest.raises(ValueError, match=f"^{says}"):
            allocation.code(6, 0)
