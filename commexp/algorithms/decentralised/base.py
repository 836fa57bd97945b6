"""What all decentralised methods have in common: a model with every worker, and neighbours to mix it with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from commexp.algorithms.base import Algorithm, AlgorithmContext
from commexp.algorithms.decentralised.gossip import CompressedGossip, NeighbourExchange, PlainGossip
from commexp.algorithms.gradient.base import row_norms
from commexp.compressors import NoCompression
from commexp.state import under_prefix, with_prefix


class DecentralisedMethod(Algorithm):
    """Worker n holds x_n and exchanges vectors with its neighbours alone. What is evaluated is the mean xbar.

    Diagnostic: ``consensus`` sum_n ||x_n - xbar||^2.
    """

    decentralised = True
    feeds_back = False
    gamma = 1.0  # the step of compressed gossip
    rows: ClassVar[tuple[str, ...]] = ("x",)  # what is kept from round to round, [W, J] each
    mixed_rows: ClassVar[tuple[str, ...]] = ("x",)  # of these, what is mixed

    def setup(self, context: AlgorithmContext) -> None:
        """Raises ValueError for compressed gossip where a message may be lost or passed on."""
        self.context = context
        self.x = context.start.repeat(len(context.comm.worker_ids), 1)
        self.mixing: dict[str, NeighbourExchange] = {}

    def start_gossip(self) -> None:
        """Once the rows have their first values."""
        comm, codec = self.context.comm, self.context.compressor
        whole = isinstance(codec, NoCompression)
        if not whole and comm.mixer is not None and not (comm.mixer.constant and comm.mixer.rounds == 1):
            raise ValueError(
                "compress: neighbours must get every message, once; give gossip.rounds=1 on a graph that "
                "stays the same, or compress=none"
            )
        for name in self.mixed_rows:
            self.mixing[name] = (
                PlainGossip(comm) if whole else CompressedGossip(comm, codec, self.gamma, getattr(self, name))
            )

    def mixed(self, name: str, x: Tensor) -> Tensor:
        """x [W, J], the new value of the row ``name``, after its exchange with the neighbours."""
        return self.mixing[name](x)

    def model(self) -> Tensor:
        return self.context.comm.watched_mean(self.x)

    def worker_models(self) -> Tensor:
        return self.context.comm.watched(self.x)

    def diagnostics(self) -> dict[str, float]:
        distances = row_norms(self.x - self.model()).double()
        return {"consensus": float(self.context.comm.watched(distances).square().sum())}

    def state_dict(self) -> dict[str, Tensor]:
        own = {name: getattr(self, name).clone() for name in self.rows}  # a file holds no memory twice
        state = with_prefix("workers", own)
        for name, mixing in self.mixing.items():
            state |= with_prefix(f"workers.mixing.{name}", mixing.state_dict())
        return {**state, **with_prefix("compressor", self.context.compressor.state_dict())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name in self.rows:
            setattr(self, name, state[f"workers.{name}"])
        for name, mixing in self.mixing.items():
            mixing.load_state_dict(under_prefix(f"workers.mixing.{name}", state))
        self.context.compressor.load_state_dict(under_prefix("compressor", state))


def check_gamma(gamma: float) -> None:
    """Raises ValueError unless it lies in (0, 1]."""
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma={gamma}: out of range; give the step of compressed gossip in (0, 1], such as 0.3")


def check_lr(lr: float) -> None:
    """Raises ValueError unless it is positive."""
    if not lr > 0:
        raise ValueError(f"lr={lr}: must be positive; give a step size such as 0.01")
