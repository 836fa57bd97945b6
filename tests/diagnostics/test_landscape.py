"""Lines and planes through models: the models' own losses appear where the models stand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from commexp.diagnostics import line, plane
from commexp.seeding import generator


def loss(x: Tensor) -> float:
    return float((x**2).sum() + torch.cos(3 * x).sum())


def test_a_line_holds_both_models_and_their_losses() -> None:
    a, b = torch.randn(2, 9, generator=generator(0, "line"))
    t, losses = line(loss, a, b, points=31)
    assert (float(t[0]), float(t[-1])) == (-0.25, 1.25)
    assert t[[5, 25]].tolist() == pytest.approx([0, 1], abs=1e-12)
    assert losses[[5, 25]].tolist() == [loss(a), loss(b)], "the very models, not models a rounding away"
    assert float(losses[15]) == pytest.approx(loss((a + b) / 2))
    assert line(loss, a, b)[1].shape == (41,)


def test_a_plane_holds_the_three_models_and_their_losses() -> None:
    """Two sides of 4 at a right angle, turned in seven dimensions; with 0.2 x 4 around them, steps of 0.8 meet all."""
    turn = torch.linalg.qr(torch.randn(7, 7, generator=generator(0, "plane"), dtype=torch.float64))[0]
    a = torch.randn(7, generator=generator(0, "a"), dtype=torch.float64)
    b, c = a + 4 * turn[0], a + 4 * turn[1]
    made = plane(loss, a, b, c, points=8, margin=0.2)
    assert made.models.tolist() == [pytest.approx(p, abs=1e-12) for p in ([0, 0], [4, 0], [0, 4])]
    assert made.x.tolist() == pytest.approx([0.8 * i for i in range(-1, 7)])
    assert made.y.tolist() == pytest.approx([0.8 * i for i in range(-1, 7)])
    assert made.losses[1, 1].item() == pytest.approx(loss(a), rel=1e-9)
    assert made.losses[1, 6].item() == pytest.approx(loss(b), rel=1e-9)
    assert made.losses[6, 1].item() == pytest.approx(loss(c), rel=1e-9)
    assert made.losses[4, 3].item() == pytest.approx(loss(a + 1.6 * turn[0] + 2.4 * turn[1]), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_on_a_plane_are_those_between_the_models(dtype: torch.dtype) -> None:
    models = torch.randn(3, 1000, generator=generator(0, "models"), dtype=dtype) + 5
    kinds = set()

    def constant(x: Tensor) -> float:
        kinds.add(x.dtype)
        return 1.0

    made = plane(constant, *models, points=5)
    assert torch.allclose(torch.cdist(made.models, made.models), torch.cdist(models.double(), models.double()))
    low, high = made.models.min(0).values, made.models.max(0).values
    edge = 0.2 * float((high - low).max())
    assert torch.allclose(torch.stack([made.x[0], made.y[0]]), low - edge)
    assert torch.allclose(torch.stack([made.x[-1], made.y[-1]]), high + edge)
    assert made.losses.shape == (5, 5)
    assert kinds == {dtype}


def test_models_on_a_line_have_no_plane() -> None:
    a, b, c = torch.randn(3, 50, generator=generator(0, "degenerate")) + 3
    for three in ((a, a, c), (a, b, a), (a, b, b), (a, b, a + 2 * (b - a)), (a, b, (a + b) / 2), (a, a, a)):
        with pytest.raises(ValueError, match="on a line"):
            plane(loss, *three)
    with pytest.raises(ValueError, match="finite"):
        plane(loss, a, b, c * math.nan)
    plane(loss, a, b, (a + b) / 2 + 1e-3 * c, points=2)


def test_settings_out_of_range() -> None:
    a, b = torch.zeros(3), torch.ones(3)
    with pytest.raises(ValueError, match="points=1"):
        line(loss, a, b, points=1)
    with pytest.raises(ValueError, match="margin=-1"):
        line(loss, a, b, margin=-1.0)
    with pytest.raises(ValueError, match="same shape"):
        plane(loss, a, b, torch.ones(4))
