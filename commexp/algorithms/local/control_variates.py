"""The base of local methods that correct every gradient of a worker by a control variate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from commexp.algorithms.base import AlgorithmContext
from commexp.algorithms.local.base import LocalMethod

if TYPE_CHECKING:
    from commexp.compressors import Compressor
    from commexp.problems.base import Ready


@dataclass
class ControlVariates(LocalMethod):
    """Worker n keeps a vector h_n (``controls``, [W, J], zero at first), which comes to be its own gradient at the
    optimum, and takes plain gradient steps along grad f_n(x_n) - h_n + (what all workers have in common). So it stays
    at the optimum of F however different the f_n are.

    Every worker changes h_n by what it has sent itself, C(.), not by what it wanted to send: then the h_n keep the sum
    that the method needs, whatever the compressor leaves out.

    Raises ValueError for a local optimiser other than SGD without momentum, from whose steps no gradient can be read;
    for fragments, a delay, a mix or steps inside islands.
    """

    codec_kind = "any"
    worker_state = "controls"

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.optimizer != "sgd":
            raise ValueError(f"optimizer={self.optimizer}: {name} reads gradients from SGD's steps; give sgd")
        if self.momentum:
            raise ValueError(f"momentum={self.momentum}: {name} reads gradients from plain steps; give 0")
        if self.fragments > 1 or self.delay or self.mix or self.inside > 1:
            raise ValueError(
                f"fragments={self.fragments}, delay={self.delay}, mix={self.mix}, inside={self.inside}: {name} needs "
                "all of x_n as it is when it is exchanged; give 1, 0, 0 and 1"
            )

    def setup(self, context: AlgorithmContext) -> None:
        super().setup(context)
        self.controls = torch.zeros_like(self.x)

    def gradient(self, x: Tensor, step: int, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        losses, gradient = super().gradient(x, step, ready)
        return losses, gradient.sub_(self.controls)

    def sent(self, codec: Compressor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Exchanges ``vectors`` v_n [W, J]: sum_m w_m C(v_m) [J], and the C(v_n) of the workers here [W, J]."""
        comm = self.context.comm
        comm.watch.to("encode")
        message = codec.encode(vectors)
        own = codec.decode(message)
        total = comm.aggregate(message, self.weights)
        codec.feedback(total, self.weights)
        return total, own
