"""DES-LOC: parameters and optimiser states averaged at periods of their own; local Adam where the periods are equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext, Sent
from commexp.algorithms.local.diloco import DiLoCo
from commexp.compressors import Compressor

SQUARE = "square"
#: the states that an optimiser keeps, by its name
MOMENTS = {"sgd": ("velocity",), "adamw": ("mean", SQUARE), "muon": ("mean", SQUARE), "sign": ()}


@dataclass
class DESLOC(DiLoCo):
    """Local steps whose optimiser states are exchanged as well, each at a period of its own. With K_x = ``tau``,

        every K_x steps                     x_n is exchanged as in DiLoCo; with outer_lr = 1 and outer_momentum = 0,
                                            the preset, x_n <- x_A
        every K_u = mean_every K_x steps    u_n <- u_A, the average: the first moments of AdamW and Muon, SGD's velocity
        every K_v = square_every K_x steps  v_n <- v_A, the average: the second moments of AdamW

    The workers send C(u_n - u), where u is the last average (0 at first), known to all, and C a compressor of its own
    for each kind of moment: u_A = u + (1/N) sum_n C(u_n - u); v_A is not less than 0. So a worker sends on average
    J (1/K_x + 1/K_u + 1/K_v) numbers in a local step. A moment travels with the fragment to which it belongs. With
    ``mean_every`` = ``square_every`` = 1 it is local Adam.

    Source: Iacob et al., arXiv 2505.22549, algorithm 1 (K_u = 3 K_x, K_v = 6 K_x). Raises ValueError for values out of
    range.
    """

    state = "moments"
    samples_workers = False  # they share the moments as well
    outer_lr: float = 1.0
    outer_momentum: float = 0.0
    mean_every: int = 3
    square_every: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mean_every", "square_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must not be less than 1; give a number of exchanges")

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.moments: dict[str, Tensor] = {}  # last averages of the optimiser's states, [J] each, by name
        for name in ("velocity", "mean", SQUARE):
            self.make_codecs(name)

    @property
    def cycle(self) -> int:
        return self.fragments * math.lcm(self.mean_every, self.square_every)

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        (part,) = super().sends(t, shapes, dim, codec)
        kept = MOMENTS[self.optimizer] if self.optimizer != "sgd" or self.momentum else ()
        return [part] * (1 + sum(self.is_due(name, t) for name in kept))

    def is_due(self, name: str, t: int) -> bool:
        """Whether the optimiser state of this name is exchanged in round t."""
        every = self.square_every if name == SQUARE else self.mean_every
        return (t // self.fragments + 1) % every == 0

    def differences(self, t: int) -> dict[str, Tensor]:
        found, part = super().differences(t), self.part(t)
        for name, rows in self.update.buffers.items():
            if self.is_due(name, t):
                if name not in self.moments:
                    self.moments[name] = torch.zeros_like(rows[0])
                found[name] = part.take(rows) - part.take(self.moments[name])
        return found

    def receive(self, t: int, sums: Mapping[str, Tensor], departed: Tensor) -> None:
        super().receive(t, sums, departed)
        part = self.part(t)
        for name in sums.keys() - {"x"}:
            average = part.take(self.moments[name]) + sums[name]
            if name == SQUARE:
                average.clamp_(min=0.0)
            self.moments[name] = part.replaced(self.moments[name], average)
            rows = self.update.buffers[name]
            new = average.expand(len(rows), -1)
            part.put(torch.lerp(new, part.take(rows), self.mix) if self.mix else new, rows)
