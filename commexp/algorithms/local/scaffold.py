"""SCAFFOLD: control variates against the drift of workers with unlike data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext, Sent
from commexp.algorithms.local.control_variates import ControlVariates
from commexp.compressors import Compressor

if TYPE_CHECKING:
    from commexp.problems.base import Ready


@dataclass
class Scaffold(ControlVariates):
    """Worker n keeps c_n and all know their mean c, zero at first. Every worker takes H = ``tau`` local steps from x
    to y_n with learning rates l_1, ..., l_H, the schedule's:

        y_n <- y_n - l_s (grad f_n(y_n) - c_n + c)
        d_n <- -c + (x - y_n) / (l_1 + ... + l_H)           what c_n lacks to be the mean gradient of these steps
        c_n <- c_n + C(d_n);    c <- c + mean_n C(d_n)
        x   <- x + outer_lr mean_n C(y_n - x)               every worker continues from x

    A worker sends two vectors, y_n - x and d_n, each through a compressor C of its own, and gets two back. x is the
    model. With equal f_n it is local SGD, and with H = 1 and outer_lr = 1 a gradient step along the mean gradient.

    Source: Karimireddy et al., arXiv 1910.06378, algorithm 1, option II; the compressors and rates that change within a
    round are ours. Raises ValueError for values out of range and what ControlVariates refuses.
    """

    state = "c"
    outer_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr={self.outer_lr}: must be positive; 1 averages the models")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.c = torch.zeros_like(context.start)
        self.make_codecs("c")

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        return 2 * super().sends(t, shapes, dim, codec)

    def gradient(self, x: Tensor, step: int, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        losses, gradient = super().gradient(x, step, ready)
        return losses, gradient.add_(self.c)

    def exchange(self, t: int) -> None:
        moved = self.differences(t)["x"]
        lacking = moved / -sum(map(self.rate, range(self.ends[t], self.ends[t + 1]))) - self.c
        change, _ = self.sent(self.codec("x", t), moved)
        step, own = self.sent(self.codec("c", t), lacking)
        self.controls = self.controls + own
        self.c = self.c + step
        self.receive(t, {"x": change}, self.x)

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        x = average if self.outer_lr == 1 else torch.lerp(self.pulled_average, average, self.outer_lr)
        self.continue_from(t, x)

    def model(self) -> Tensor:
        return self.pulled_average
