"""Sharpness: the increase of the loss within a short distance.

Source: Foret et al., arXiv 2010.01412 (SAM, equation 2: the first-order worst case in a ball of radius rho, p = 2):

    S(x) = f(x + rho g / ||g||) - f(x),  g = grad f(x)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def sharpness(loss_and_grad: Callable[[Tensor], tuple[float, Tensor]], x: Tensor, rho: float = 0.05) -> float:
    """S(x) of one model x [J], in units of the loss; ``rho`` is in units of the parameters. 0 if the gradient is 0, NaN
    if its norm is not finite.

    ``loss_and_grad`` returns f(x) and g [J], whose memory its next call may overwrite; it is called at most twice.
    Raises ValueError unless rho is finite and positive.
    """
    if not 0 < rho < math.inf:
        raise ValueError(f"rho={rho:g}: must be finite and above 0")
    x = x.detach()
    here, gradient = loss_and_grad(x)
    norm = float(torch.linalg.vector_norm(gradient.detach()))
    if norm == 0:
        return 0.0
    if not math.isfinite(norm):
        return math.nan
    there, _ = loss_and_grad(torch.add(x, gradient.detach() / norm, alpha=rho))
    return float(there) - float(here)
