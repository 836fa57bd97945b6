"""The base of decentralised methods: one model per worker, and gossip with the neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from commexp.algorithms.base import Algorithm, AlgorithmContext, Sent
from commexp.algorithms.decentralised.gossip import CompressedGossip, NeighbourExchange, PlainGossip
from commexp.algorithms.gradient.base import Schedule, row_norms
from commexp.comm.exchanges import GOSSIP
from commexp.compressors import Compressor, NoCompression

if TYPE_CHECKING:
    from commexp.topologies import Mixer


class DecentralisedMethod(Algorithm):
    """Worker n holds x_n and exchanges vectors with its neighbours only. The model that is evaluated is the mean xbar.

    Diagnostic: ``consensus`` sum_n ||x_n - xbar||^2.
    """

    decentralised = True
    feeds_back = False
    keeps_residual = True
    gamma = 1.0  # the step of compressed gossip
    state = "compressor=context.compressor"
    worker_state = "x mixing"
    mixed_rows: ClassVar[tuple[str, ...]] = ("x",)  # the worker state that is mixed with neighbours, [W, J] each

    def setup(self, context: AlgorithmContext) -> None:
        """Call ``start_gossip`` at the end of the concrete method's set-up."""
        self.context = context
        self.x = context.start.repeat(len(context.comm.worker_ids), 1)
        self.mixing: dict[str, NeighbourExchange] = {}

    @property
    def models(self) -> Tensor:
        """x_n of the workers here, [W, J]."""
        return self.x

    def start_gossip(self) -> None:
        """Prepares the exchanges; called when ``rows`` have their initial values. Raises ValueError for compressed
        gossip with several mixings per exchange or on a graph that changes."""
        comm, codec = self.context.comm, self.context.compressor
        whole = isinstance(codec, NoCompression)
        if not whole and comm.mixer is not None and not (comm.mixer.constant and comm.mixer.rounds == 1):
            raise ValueError(
                "compress: compressed gossip needs one mixing a round on a fixed graph; give gossip.rounds=1 and a "
                "topology that does not change, or compress=none"
            )
        for name in self.mixed_rows:
            self.mixing[name] = (
                PlainGossip(comm) if whole else CompressedGossip(comm, codec, self.gamma, getattr(self, name))
            )

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        return [Sent(dim, shapes, exchange=GOSSIP)] * len(self.mixed_rows)

    def mixed(self, name: str, x: Tensor) -> Tensor:
        """Mixes x [W, J], the new value of the row ``name``, with the neighbours' values."""
        return self.mixing[name](x)

    def model(self) -> Tensor:
        return self.context.comm.watched_mean(self.x)

    def worker_models(self) -> Tensor:
        return self.context.comm.watched(self.models)

    def diagnostics(self) -> dict[str, float]:
        distances = row_norms(self.models - self.model()).double()
        return {"consensus": float(self.context.comm.watched(distances).square().sum())}


@dataclass
class StepMethod(DecentralisedMethod):
    """A decentralised method that takes plain steps along the gradients of its batches. ``lr``: the step, multiplied by
    the schedule's factor. Raises ValueError if it is not positive."""

    lr: float = 0.1
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check_lr(self.lr)

    def rate(self, step: int) -> float:
        return self.lr * self.schedule.factor(step, self.context.steps)

    def gradient(self, x: Tensor, step: int) -> Tensor:
        """Of the batches of local step ``step`` at x_n, [W, J]; the next call may overwrite it."""
        problem = self.context.problem
        return problem.loss_and_grad(x, problem.batch(step))[1]


def least_eigenvalue(mixer: Mixer, algo: str) -> float:
    """A lower bound of the eigenvalues of an exchange's W. Raises ValueError unless W is symmetric, the same in all
    rounds, and mixes without acceleration."""
    if mixer.least is None:
        raise ValueError(
            f"algo={algo}: needs plain gossip with symmetric weights that stay the same; give another topology, or "
            "algo=dsgt"
        )
    return mixer.least


def check_gamma(gamma: float) -> None:
    """Raises ValueError unless gamma lies in (0, 1]."""
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma={gamma}: out of range; give the step of compressed gossip in (0, 1], such as 0.3")


def check_lr(lr: float) -> None:
    """Raises ValueError unless lr is positive."""
    if not lr > 0:
        raise ValueError(f"lr={lr}: must be positive; give a step size such as 0.01")
