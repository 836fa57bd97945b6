"""SCAFFOLD: control variates against the drift of workers with unlike data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext, Sent
from commexp.algorithms.local.called import OwnState
from commexp.algorithms.local.control_variates import ControlVariates
from commexp.comm import Answers
from commexp.compressors import Compressor, Message
from commexp.compressors.grouped import Group, Grouped

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

    A worker sends two vectors, y_n - x and d_n, each through a compressor C of its own, and gets two back, x and c. x
    is the model. With equal f_n it is local SGD, and with H = 1 and outer_lr = 1 a gradient step along the mean
    gradient. Where a share s of the workers takes part, or answers in time, means are over those, and c moves by
    s mean_n C(d_n): it stays the mean of all c_n. With ``shares`` = samples all means are weighted by samples, and s is
    the share of those.

    Source: Karimireddy et al., arXiv 1910.06378, algorithm 1, option II; the compressors and rates that change within a
    round are ours. Raises ValueError for values out of range and what ControlVariates refuses.
    """

    state = "c"
    samples_workers = True
    called_with = 2
    outer_lr: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outer_lr > 0:
            raise ValueError(f"outer_lr={self.outer_lr}: must be positive; 1 averages the models")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.c, dim = torch.zeros_like(context.start), len(context.start)
        self.make_codecs("c")
        codecs = self.codec("x", 0), self.codec("c", 0)
        places = slice(0, dim), slice(dim, 2 * dim)
        self.both = Grouped(codecs[0], [Group([each], codec) for each, codec in zip(places, codecs, strict=True)])

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        return 2 * super().sends(t, shapes, dim, codec)

    def gradient(self, x: Tensor, step: int, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        losses, gradient = super().gradient(x, step, ready)
        return losses, gradient.add_(self.c)

    def lacking(self, t: int, moved: Tensor) -> Tensor:
        """The d_n, [W, J]; ``moved``: the y_n - x."""
        return moved / -sum(map(self.rate, range(self.ends[t], self.ends[t + 1]))) - self.c

    def exchange(self, t: int) -> None:
        moved = self.differences(t)["x"]
        lacking = self.lacking(t, moved)
        change, _ = self.sent(self.codec("x", t), moved)
        step, own = self.sent(self.codec("c", t), lacking)
        self.controls = self.controls + own
        self.c = self.c + step
        self.receive(t, {"x": change}, self.x)

    # -- where some workers answer: both vectors in one message

    @property
    def known(self) -> Tensor:
        return torch.cat([self.pulled_average, self.c])

    def begin_at(self, t: int, known: Tensor) -> None:
        x, self.c = known.chunk(2)
        self.continue_from(t, x)

    @property
    def answering(self) -> Compressor:
        return self.both

    def answer(self, t: int) -> Message:
        moved = self.differences(t)["x"]
        message = self.both.encode(torch.cat([moved, self.lacking(t, moved)], dim=1))
        self.controls = self.controls + self.both.decode(message)[:, len(self.c) :]
        return message

    def close(self, t: int, answers: Answers) -> None:
        change, step = answers.total.chunk(2)
        self.c = self.c + self.share_of(answers.answered) * step
        self.receive(t, {"x": change}, self.x)

    def kept(self) -> OwnState:
        return OwnControls(self)

    # -- the model

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        x = average if self.outer_lr == 1 else torch.lerp(self.pulled_average, average, self.outer_lr)
        self.continue_from(t, x)

    def model(self) -> Tensor:
        return self.pulled_average


class OwnControls(OwnState):
    """And c_n."""

    worker_state = "controls=method.controls"
