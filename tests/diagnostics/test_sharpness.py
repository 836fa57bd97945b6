"""Sharpness against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from commexp.diagnostics import sharpness
from commexp.seeding import generator


@pytest.mark.parametrize("rho", [0.05, 0.7])
def test_a_quadratic_by_hand(rho: float) -> None:
    """f = x'Ax/2 + b'x: S = rho ||g|| + rho^2 g'Ag / (2 g'g)."""
    draw = generator(0, "quadratic")
    root = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    A, b, x = root @ root.T, *torch.randn(2, 6, generator=draw, dtype=torch.float64)

    def loss_and_grad(z: Tensor) -> tuple[float, Tensor]:
        return float(z @ A @ z / 2 + b @ z), A @ z + b

    g = A @ x + b
    by_hand = rho * g.norm() + rho**2 * (g @ A @ g) / (2 * g @ g)
    assert sharpness(loss_and_grad, x, rho) == pytest.approx(float(by_hand), rel=1e-10)


def test_with_autograd_and_a_gradient_that_is_overwritten() -> None:
    buffer = torch.empty(2, dtype=torch.float64)

    def loss_and_grad(z: Tensor) -> tuple[float, Tensor]:
        leaf = z.clone().requires_grad_()
        loss = (leaf**2).sum()
        buffer.copy_(torch.autograd.grad(loss, leaf)[0])
        return loss.item(), buffer

    x = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert sharpness(loss_and_grad, x) == pytest.approx(5.05**2 - 25)


def test_gradients_without_a_direction() -> None:
    assert sharpness(lambda x: (1.0, torch.zeros_like(x)), torch.ones(3)) == 0
    assert math.isnan(sharpness(lambda x: (1.0, x * math.inf), torch.ones(3)))
    assert math.isnan(sharpness(lambda x: (math.nan, x), torch.ones(3)))


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_rho_out_of_range(rho: float) -> None:
    with pytest.raises(ValueError, match="rho="):
        sharpness(lambda x: (1.0, x), torch.ones(3), rho)
