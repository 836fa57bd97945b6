"""The loss around a trained model: width of its valley, sharpness, and the loss on lines and planes through it. Usable
for any loss of a flat vector, without the rest of commexp:

measured = examine(loss, loss_and_grad, centre, workers)    # [J], [M, J] -> a dictionary of numbers
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from commexp.diagnostics.landscape import Plane, line, plane
from commexp.diagnostics.sharpness import sharpness
from commexp.diagnostics.valley import Valley, mean_valley

__all__ = ["Plane", "Valley", "examine", "line", "mean_valley", "plane", "sharpness"]


def examine(
    loss: Callable[[Tensor], float],
    loss_and_grad: Callable[[Tensor], tuple[float, Tensor]],
    centre: Tensor,
    workers: Tensor,
    kappa: float = 2.0,
    rho: float = 0.05,
) -> dict[str, float]:
    """``mean_valley`` and ``inverse_mean_valley`` of the centre [J] and the workers [M, J], NaN if no direction has a
    finite radius; ``valley_directions``, the number of directions with a finite radius; ``sharpness`` of the centre.

    ``loss`` and ``loss_and_grad`` use the same fixed training sample. Raises ValueError as ``mean_valley`` and
    ``sharpness`` do.
    """
    valley = mean_valley(loss, centre, workers, kappa)
    return {
        "mean_valley": valley.mean,
        "inverse_mean_valley": -valley.mean,
        "valley_directions": float(valley.directions),
        "sharpness": sharpness(loss_and_grad, centre, rho),
    }
