"""Valley radii against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from commexp.diagnostics import examine, mean_valley
from commexp.seeding import generator


def workers_around(centre: Tensor, count: int) -> Tensor:
    return centre + torch.randn(count, len(centre), generator=generator(0, "workers"), dtype=centre.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("c", "a", "kappa"), [(0.5, 2.0, 2.0), (0.01, 1e3, 1.1), (3.0, 1e-4, 5.0), (1.0, 1e8, 2.0)])
def test_a_round_bowl_has_one_radius(c: float, a: float, kappa: float, dtype: torch.dtype) -> None:
    seen: set[torch.dtype] = set()

    def loss(x: Tensor) -> float:
        seen.add(x.dtype)
        return c + a * float((x * x).sum())

    centre = torch.zeros(7, dtype=dtype)
    valley = mean_valley(loss, centre, workers_around(centre, 4), kappa)
    assert valley.radii == pytest.approx([math.sqrt((kappa - 1) * c / a)] * 4, rel=1e-2)
    assert valley.mean == pytest.approx(sum(valley.radii) / 4)
    assert valley.directions == 4
    assert valley.loss == c
    assert seen == {dtype}


def test_an_oblong_bowl_away_from_the_origin() -> None:
    curvature = torch.tensor([1.0, 100.0, 4.0], dtype=torch.float64)
    centre = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    offsets = torch.tensor([[2.0, 0.0, 0.0], [0.0, -0.1, 0.0], [0.3, 0.1, -0.2]], dtype=torch.float64)
    valley = mean_valley(lambda x: 1 + float((curvature * (x - centre) ** 2).sum()), centre, centre + offsets)
    along = (curvature * offsets**2).sum(1) / (offsets**2).sum(1)  # the curvature in the direction of each worker
    assert valley.radii == pytest.approx((1 / along.sqrt()).tolist(), rel=1e-2)


def test_the_smallest_radius_of_several() -> None:
    centre, worker = torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    valley = mean_valley(lambda x: 1.0 + 2 * math.sin(math.pi * float(x)) ** 2, centre, worker)
    assert valley.radii == pytest.approx([0.25], rel=1e-2)


def test_evaluations_are_counted() -> None:
    calls = 0

    def loss(x: Tensor) -> float:
        nonlocal calls
        calls += 1
        assert not torch.is_grad_enabled()
        return 1 + float(x @ x)

    centre = torch.zeros(3)
    assert mean_valley(loss, centre, workers_around(centre, 3)).evaluations == calls
    assert calls < 3 * 40


def test_a_direction_without_end_is_left_out_of_the_mean() -> None:
    seen = []

    def loss(x: Tensor) -> float:
        seen.append(float(x.norm()))
        return 1 + float(x[0]) ** 2

    centre = torch.zeros(2, dtype=torch.float64)
    valley = mean_valley(loss, centre, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64), bound=10.0)
    assert valley.radii == (math.inf, pytest.approx(1, rel=1e-2))
    assert (valley.directions, valley.endless) == (1, 1)
    assert valley.mean == pytest.approx(1, rel=1e-2)
    assert max(seen) == 10


def test_losses_that_are_not_finite_are_above() -> None:
    centre, workers = torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for bad in (math.nan, math.inf, -math.inf):
        valley = mean_valley(lambda x, bad=bad: 1.0 if float(x) < 0.3 else bad, centre, workers)  # type: ignore[misc]
        assert valley.radii == pytest.approx([0.3], rel=1e-2)
    wall = mean_valley(lambda x: 1.0 if float(x) == 0 else math.nan, centre, workers)
    assert 0 <= wall.mean < 1e-15
    assert wall.evaluations < 80


@pytest.mark.parametrize("loss", [0.0, -1.0, math.nan, math.inf])
def test_a_loss_without_multiples_has_no_valley(loss: float) -> None:
    valley = mean_valley(lambda x: loss, torch.zeros(2), torch.ones(3, 2))
    assert all(map(math.isnan, valley.radii))
    assert math.isnan(valley.mean)
    assert (valley.directions, valley.evaluations) == (0, 1)


def test_a_worker_at_the_centre_has_no_direction() -> None:
    same = torch.randn(100, generator=generator(0, "same"))
    workers = same.repeat(3, 1)
    rounded = (workers[0] / 3 + workers[1] / 3) + workers[2] / 3  # the same but for rounding
    assert not torch.equal(rounded, same)
    for centre in (same, rounded):
        assert all(map(math.isnan, mean_valley(lambda x: 1 + float(x @ x), centre, workers).radii))
    workers[1, 0] += 1
    workers[2, 0] = math.nan
    valley = mean_valley(lambda x: 1 + float((x - same) @ (x - same)), same, workers)
    assert valley.radii == pytest.approx((math.nan, 1, math.nan), rel=1e-2, nan_ok=True)


@pytest.mark.parametrize(
    "setting", [{"kappa": 1.0}, {"first": 0.0}, {"growth": 1.0}, {"bound": 1e-3}, {"tolerance": 0}, {"kappa": math.nan}]
)
def test_settings_out_of_range(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*must be finite and above"):
        mean_valley(lambda x: 1.0, torch.zeros(2), torch.ones(1, 2), **setting)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"centre \[2\], workers \[1, 3\]"):
        mean_valley(lambda x: 1.0, torch.zeros(2), torch.ones(1, 3))


def test_examine() -> None:
    def loss(x: Tensor) -> float:
        return 1 + float((x - 1) @ (x - 1))

    def loss_and_grad(x: Tensor) -> tuple[float, Tensor]:
        return loss(x), 2 * (x - 1)

    centre = torch.ones(4, dtype=torch.float64)
    measured = examine(loss, loss_and_grad, centre, workers_around(centre, 3))
    assert measured == {
        "mean_valley": pytest.approx(1, rel=1e-2),
        "inverse_mean_valley": -measured["mean_valley"],
        "valley_directions": 3.0,
        "sharpness": 0.0,
    }
    nowhere = examine(loss, loss_and_grad, centre, centre.repeat(3, 1), kappa=3.0, rho=0.1)
    assert math.isnan(nowhere["mean_valley"])
    assert math.isnan(nowhere["inverse_mean_valley"])
    assert nowhere["valley_directions"] == 0
