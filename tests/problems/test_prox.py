"""Every proximal operator of conf/prox against its definition, by minimisers that know nothing of closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from registry import options
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from commexp.config.schema import CONF
from commexp.problems.prox import L1, L2, Box, ElasticNet, GroupLasso, L1Ball, NoProx, Prox

NAMES = options("prox")
EACH = pytest.mark.parametrize("name", NAMES)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
STEP = 5000.0  # with weights of 1e-4 a threshold of 0.5
J = 21  # two groups of eight and one of five


def made(name: str) -> Prox:
    prox = instantiate(OmegaConf.load(CONF / "prox" / f"{name}.yaml"))
    assert isinstance(prox, Prox)
    return prox


def rows(count: int, dim: int = J, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def entry_by_entry(h: Callable[[float], float], low: float = -9.0, high: float = 9.0) -> Callable[..., np.ndarray]:
    def reference(z: np.ndarray, step: float) -> np.ndarray:
        found = []
        for v in z:
            result = minimize_scalar(
                lambda u, v=v: step * h(u) + (u - v) ** 2 / 2,
                bounds=(low, high),
                method="bounded",
                options={"xatol": 1e-9},
            )
            found.append(result.x)
        return np.array(found)

    return reference


def groups_by_dual(z: np.ndarray, step: float) -> np.ndarray:
    """u = z - y, y the point nearest to z among those with ||y_g|| <= step * weight * sqrt(|g|)."""
    found = []
    for g in (z[:8], z[8:16], z[16:]):
        bound = step * 1e-4 * math.sqrt(len(g))
        inside = {"type": "ineq", "fun": lambda y, b=bound: b**2 - y @ y, "jac": lambda y: -2 * y}
        start = g * min(1, bound / np.linalg.norm(g)) * 0.5
        nearest = minimize(
            lambda y, g=g: (y - g) @ (y - g) / 2, start, jac=lambda y, g=g: y - g, method="SLSQP",
            constraints=inside, options={"ftol": 1e-15, "maxiter": 200},
        )  # fmt: skip
        found.append(g - nearest.x)
    return np.concatenate(found)


def ball_by_bisection(z: np.ndarray, step: float, radius: float = 10.0) -> np.ndarray:
    if np.abs(z).sum() <= radius:
        return z
    low, high = 0.0, float(np.abs(z).max())
    for _ in range(200):
        theta = (low + high) / 2
        low, high = (theta, high) if np.maximum(np.abs(z) - theta, 0).sum() > radius else (low, theta)
    return np.sign(z) * np.maximum(np.abs(z) - high, 0)


REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "none": entry_by_entry(lambda u: 0.0),
    "l1": entry_by_entry(lambda u: 1e-4 * abs(u)),
    "l2": entry_by_entry(lambda u: 1e-4 / 2 * u**2),
    "elastic_net": entry_by_entry(lambda u: 1e-4 * abs(u) + 1e-4 / 2 * u**2),
    "group_lasso": groups_by_dual,
    "l1_ball": ball_by_bisection,
    "box": entry_by_entry(lambda u: 0.0, -1.0, 1.0),
}


@EACH
def test_prox_minimises_what_defines_it(name: str) -> None:
    """Nearer than the reference's own tolerance the objective decides: no point around is lower."""
    prox, z = made(name), rows(3) * torch.tensor([[1.0], [0.3], [2.0]], dtype=torch.float64)
    got = prox.prox(z, STEP)
    rng = np.random.default_rng(0)
    for u, v in zip(got, z, strict=True):
        np.testing.assert_allclose(u, REFERENCES[name](v.numpy(), STEP), atol=1e-6)
        if name in ("l1_ball", "box"):  # the bounds' slack would win
            continue
        reached = STEP * prox.value(u) + float((u - v).square().sum()) / 2
        for size in (1e-1, 1e-3, 1e-5):
            w = u + size * torch.from_numpy(rng.standard_normal(J))
            assert reached <= STEP * prox.value(w) + float((w - v).square().sum()) / 2 + 1e-13 * reached


@EACH
def test_prox_is_firmly_nonexpansive(name: str) -> None:
    prox, a, b = made(name), 2 * rows(50, seed=1), 2 * rows(50, seed=2)
    moved = prox.prox(a, STEP) - prox.prox(b, STEP)
    assert bool((moved.square().sum(1) <= (moved * (a - b)).sum(1) + 1e-12).all())


def test_what_is_taken_off_is_a_subgradient() -> None:
    z = torch.tensor([[3.0, -3.0, 0.25, -0.25, 0.5, 0.0]])
    assert (z - L1(2.0).prox(z, 0.25)).tolist() == [[0.5, -0.5, 0.25, -0.25, 0.5, 0.0]]
    assert L2(3.0).prox(z, 1.0).tolist() == (z / 4).tolist()
    assert ElasticNet(2.0, 4.0).prox(z, 0.25).tolist() == [[1.25, -1.25, 0.0, 0.0, 0.0, 0.0]]
    z = torch.tensor([[3.0, 4.0, 0.0, 0.0, 0.3, 0.4, -2.0]], dtype=torch.float64)
    wanted = np.array([[3.0 * (1 - math.sqrt(2) / 5), 4.0 * (1 - math.sqrt(2) / 5), 0.0, 0.0, 0.0, 0.0, -1.0]])
    np.testing.assert_allclose(GroupLasso(2.0, 2).prox(z, 0.5), wanted, rtol=1e-14)
    assert L1Ball(2.0).prox(torch.tensor([[3.0, -2.0, 0.5]]), 1.0).tolist() == [[1.5, -0.5, 0.0]]
    assert Box(-1.0, 0.5).prox(torch.tensor([[-2.0, 0.25, 2.0]]), 1.0).tolist() == [[-1.0, 0.25, 0.5]]


def test_values_by_hand() -> None:
    x = torch.tensor([3.0, 4.0, 0.0, 0.0, -2.0])
    assert NoProx().value(x) == 0
    assert L1(0.5).value(x) == 4.5
    assert L2(0.5).value(x) == 0.25 * 29
    assert ElasticNet(0.5, 0.5).value(x) == 4.5 + 0.25 * 29
    assert GroupLasso(0.5, 2).value(x) == pytest.approx(0.5 * (5 * math.sqrt(2) + 2))
    assert GroupLasso(0.5, 100).value(x) == pytest.approx(0.5 * math.sqrt(5 * 29))
    assert (L1Ball(9.0).value(x), L1Ball(9.0 / (1 + 5e-7)).value(x), L1Ball(8.99).value(x)) == (0, 0, math.inf)
    assert (Box(-2.0, 4.0).value(x), Box(0.0, 4.0).value(x), Box(-2.0, 3.9).value(x)) == (0, math.inf, math.inf)


@EACH
@DTYPES
@pytest.mark.parametrize("dim", [1, 5, 8, J, 1000])
def test_edges(name: str, dtype: torch.dtype, dim: int) -> None:
    prox, z = made(name), rows(3, dim, dtype)
    assert prox.prox(torch.zeros_like(z), STEP).count_nonzero() == 0
    for size in (1e-42, 1e-30, 1.0, 1e30, torch.finfo(dtype).max / 8):
        given = z * size
        before = given.clone()
        got = prox.prox(given, STEP)
        assert torch.equal(given, before)
        assert (got.shape, got.dtype) == (given.shape, dtype)
        assert bool(got.isfinite().all())
        assert bool((got.abs() <= given.abs() * (1 + 1e-6)).all())
        assert bool((got * given >= 0).all())
        assert all(math.isfinite(prox.value(row)) or float(row.abs().max()) > 1e150 for row in got)
    if name not in ("l1_ball", "box"):
        assert torch.equal(prox.prox(z, 0.0), z)


@EACH
@DTYPES
@pytest.mark.parametrize("dim", [1, J, 40_000])
def test_bits_do_not_depend_on_the_other_rows(name: str, dtype: torch.dtype, dim: int) -> None:
    prox, z = made(name), rows(3, dim, dtype)
    together = prox.prox(z, STEP)
    assert torch.equal(together, torch.cat([prox.prox(row[None].clone(), STEP) for row in z]))
    assert torch.equal(together, torch.cat([prox.prox(z[:1], STEP), prox.prox(z[1:], STEP)]))
    strided = torch.stack([z, z + 1], -1)[..., 0]
    assert torch.equal(together, prox.prox(strided, STEP))
    z[1] = math.nan
    assert torch.equal(together[::2], prox.prox(z, STEP)[::2])
    assert bool(prox.prox(z, STEP)[1].isnan().all())


@pytest.mark.parametrize("radius", [1e-30, 1e-3, 1.0, 300.0])
def test_the_ball_is_reached_whatever_the_scales(radius: float) -> None:
    """In float32: entries far above the radius, many equal ones, one that towers over many."""
    many = torch.full((20_000,), 1.0)
    towering = torch.full((20_000,), 1e-5)
    towering[7] = radius
    for z in (many, many * 1e30, towering, rows(1, 20_000, torch.float32)[0], -many + torch.arange(20_000) * 1e-7):
        got = L1Ball(radius).prox(z[None], 1.0)[0]
        assert L1Ball(radius).value(got) == 0
        assert float(got.double().abs().sum()) == pytest.approx(radius, rel=1e-6)
        wanted = ball_by_bisection(z.double().numpy(), 1.0, radius)
        if float(z.abs().max()) < 1e6 * radius:  # bisection loses the radius itself below
            np.testing.assert_allclose(got.double(), wanted, atol=1e-6 * radius)


def test_what_lies_inside_a_set_stays() -> None:
    z = rows(4, dtype=torch.float32)
    assert torch.equal(L1Ball(1e3).prox(z, 1.0), z)
    assert torch.equal(L1Ball(1e300).prox(z, 1.0), z)
    assert torch.equal(Box(-math.inf, math.inf).prox(z, 1.0), z)
    assert NoProx().prox(z, 1.0) is z


@pytest.mark.parametrize(
    ("made_of", "message"),
    [
        (lambda: L1(-1.0), "weight=-1.0: must not be negative; give 0 or more"),
        (lambda: L1(math.nan), "weight=nan: must be finite"),
        (lambda: L2(-1.0), "weight=-1.0: must not be negative"),
        (lambda: ElasticNet(-1.0, 0.0), "l1=-1.0: must not be negative"),
        (lambda: ElasticNet(0.0, -2.0), "l2=-2.0: must not be negative"),
        (lambda: GroupLasso(-1.0), "weight=-1.0: must not be negative"),
        (lambda: GroupLasso(size=0), "size=0: must not be less than 1"),
        (lambda: L1Ball(0.0), "radius=0.0: must be positive"),
        (lambda: L1Ball(math.inf), "radius=inf: must be positive and finite"),
        (lambda: Box(1.0, -1.0), "low=1.0: must not be above high=-1.0"),
        (lambda: Box(math.nan, 1.0), "low=nan: must not be above"),
    ],
)
def test_refusals(made_of: Callable[[], Prox], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        made_of()
    assert str(refused.value).startswith(message)
