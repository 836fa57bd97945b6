"""The width of the valley around the average of the workers.

Source: Dimlioglu and Choromanska, arXiv 2507.20424 (Mean Valley). With x_A the centre, x_m the worker models and f the
loss on a fixed training sample:

    u_m = (x_m - x_A) / ||x_m - x_A||
    r_m = min {r > 0 : f(x_A + r u_m) = kappa f(x_A)}
    MV  = mean of r_m,  Inverse MV = -MV

Radii are Euclidean distances between parameter vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Valley:
    """``loss``: f(x_A). ``radii``: r_m of each of the M workers; infinite if the loss stays below kappa f(x_A) up to
    the bound, NaN if there is no direction. ``evaluations``: the number of evaluations of the loss."""

    loss: float
    radii: tuple[float, ...]
    evaluations: int

    @property
    def directions(self) -> int:
        """The number of finite radii, which enter the mean."""
        return sum(map(math.isfinite, self.radii))

    @property
    def endless(self) -> int:
        """The number of infinite radii."""
        return sum(map(math.isinf, self.radii))

    @property
    def mean(self) -> float:
        """MV over the finite radii; NaN if there is none."""
        finite = [r for r in self.radii if math.isfinite(r)]
        return sum(finite) / len(finite) if finite else math.nan


@torch.no_grad()
def mean_valley(
    loss: Callable[[Tensor], float],
    centre: Tensor,
    workers: Tensor,
    kappa: float = 2.0,
    first: float = 1e-3,
    growth: float = 1.5,
    bound: float = 1e3,
    tolerance: float = 1e-2,
) -> Valley:
    """The valley around ``centre`` [J] in the directions of ``workers`` [M, J].

    Let s = ||x_A|| + 1. The search tries the radii first s, growth first s, growth^2 first s, ... up to bound s until
    the loss exceeds kappa f(x_A). It then bisects between the last two radii until they differ by less than
    ``tolerance`` times the larger one (or by less than eps first s, with the eps of the dtype); r_m is their midpoint.
    The search can miss a ridge that is narrower than a step. A loss that is not finite counts as exceeding. The models
    have the dtype of ``centre``.

    A worker has no direction if its distance to the centre is not finite or at most M eps ||x_A||, the rounding error
    of a mean. No worker has one if f(x_A) is not finite or not positive. Raises ValueError for an argument out of range
    or for shapes that do not fit.
    """
    limits = {"kappa": (kappa, 1), "first": (first, 0), "growth": (growth, 1), "bound": (bound, first)}
    for name, (value, least) in {**limits, "tolerance": (tolerance, 0)}.items():
        if not least < value < math.inf:
            raise ValueError(f"{name}={value:g}: must be finite and above {least:g}")
    if centre.ndim != 1 or workers.ndim != 2 or workers.shape[1] != len(centre):
        raise ValueError(f"centre {list(centre.shape)}, workers {list(workers.shape)}: must be [J] and [M, J]")
    norm, eps = float(torch.linalg.vector_norm(centre)), torch.finfo(centre.dtype).eps
    least, most, fine = first * (norm + 1), bound * (norm + 1), eps * first * (norm + 1)
    at_centre = float(loss(centre))
    evaluations = 1

    def above(radius: float, direction: Tensor) -> bool:
        nonlocal evaluations
        evaluations += 1
        value = float(loss(torch.add(centre, direction, alpha=radius)))
        return not (math.isfinite(value) and value < kappa * at_centre)

    def radius_along(direction: Tensor) -> float:
        low, high = 0.0, least
        while not above(high, direction):
            if high >= most:
                return math.inf
            low, high = high, min(growth * high, most)
        while high - low > max(tolerance * high, fine):
            middle = (low + high) / 2
            low, high = (low, middle) if above(middle, direction) else (middle, high)
        return (low + high) / 2

    radii = []
    for worker in workers:
        away = worker.to(centre.dtype) - centre
        distance = float(torch.linalg.vector_norm(away))
        defined = 0 < at_centre < math.inf and len(workers) * eps * norm < distance < math.inf
        radii.append(radius_along(away.div_(distance)) if defined else math.nan)
    return Valley(at_centre, tuple(radii), evaluations)
