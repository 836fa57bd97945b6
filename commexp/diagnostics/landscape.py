"""The loss along the line through two models and on the plane through three.

Source of the plane: Garipov et al., arXiv 1802.10026 (figure 1). With models a, b, c:

    u = (b - a) / ||b - a||
    v = w / ||w||,  w = (c - a) - <c - a, u> u
    P(x, y) = a + x u + y v

so a is at (0, 0), b at (||b - a||, 0), c at (<c - a, u>, ||w||), and x and y are distances between parameter vectors.
The mean of the three models is at the mean of their coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plane:
    """``x``, ``y`` [points]: the coordinates. ``losses`` [points, points]: the loss at P(x_j, y_i) in row i, column j.
    ``models`` [3, 2]: the coordinates of a, b, c. All float64, on the CPU."""

    x: Tensor
    y: Tensor
    losses: Tensor
    models: Tensor


@torch.no_grad()
def line(
    loss: Callable[[Tensor], float], a: Tensor, b: Tensor, points: int = 41, margin: float = 0.25
) -> tuple[Tensor, Tensor]:
    """t and f(a + t (b - a)), both [points], float64 on the CPU, for evenly spaced t in [-margin, 1 + margin].

    Raises ValueError unless points >= 2, margin >= 0 and a and b have the same shape [J].
    """
    _check((a, b), points, margin)
    t = torch.linspace(-margin, 1 + margin, points, dtype=torch.float64)
    losses = [float(loss(torch.lerp(a, b, at))) for at in t.tolist()]
    return t, torch.tensor(losses, dtype=torch.float64)


@torch.no_grad()
def plane(
    loss: Callable[[Tensor], float], a: Tensor, b: Tensor, c: Tensor, points: int = 21, margin: float = 0.2
) -> Plane:
    """f on a grid of points x points in the plane through a, b, c [J]: the bounding box of the three, extended on every
    side by ``margin`` times its longer side.

    The axes are computed in float64, the models in the dtype of ``a``. Raises ValueError for models that are not finite
    or are collinear up to rounding (8 eps times the largest norm), and as ``line`` does.
    """
    _check((a, b, c), points, margin)
    origin = a.double()
    u, w = b.double() - origin, c.double() - origin
    norms = [float(torch.linalg.vector_norm(m.double())) for m in (a, b, c)]
    if not all(map(math.isfinite, norms)):
        raise ValueError("the three models must be finite")
    rounding = 8 * torch.finfo(a.dtype).eps * max(norms)
    b_x = _normalise(u, rounding)
    c_x = float(w @ u)
    c_y = _normalise(w.sub_(u, alpha=c_x), rounding)
    wide, high = (min(0.0, c_x), max(b_x, c_x)), (0.0, c_y)
    edge = margin * max(wide[1] - wide[0], c_y)
    x, y = (torch.linspace(s[0] - edge, s[1] + edge, points, dtype=torch.float64) for s in (wide, high))
    losses = torch.empty(points, points, dtype=torch.float64)
    for i, up in enumerate(y.tolist()):
        row = torch.add(origin, w, alpha=up)
        for j, right in enumerate(x.tolist()):
            losses[i, j] = float(loss(torch.add(row, u, alpha=right).to(a.dtype)))
    return Plane(x, y, losses, torch.tensor([[0.0, 0.0], [b_x, 0.0], [c_x, c_y]], dtype=torch.float64))


def _normalise(axis: Tensor, rounding: float) -> float:
    """Divides ``axis`` by its norm and returns the norm."""
    norm = float(torch.linalg.vector_norm(axis))
    if norm <= rounding:
        raise ValueError("the three models lie on a line; a plane needs three that do not")
    axis.div_(norm)
    return norm


def _check(models: tuple[Tensor, ...], points: int, margin: float) -> None:
    if points < 2:
        raise ValueError(f"points={points}: must be at least 2")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin={margin:g}: must be finite and at least 0")
    if any(m.ndim != 1 or m.shape != models[0].shape for m in models):
        raise ValueError(f"models {[list(m.shape) for m in models]}: must have the same shape [J]")
