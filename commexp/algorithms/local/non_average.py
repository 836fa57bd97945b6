"""Soft consensus towards a point that is not the average."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from commexp.algorithms.base import Sent
from commexp.algorithms.local.soft_consensus import SoftConsensus
from commexp.comm.exchanges import ALL_GATHER, ALL_REDUCE, Exchange
from commexp.compressors import Compressor


@dataclass
class NonAverageConsensus(SoftConsensus):
    """Soft consensus with an x_C that the concrete method chooses; alpha is ``pull``. The workers exchange the average
    x_A only if it is needed: in every round if there is a push, and once at the end of the run, for the model. For an
    evaluation in between, the same average (of the workers before the pull) is computed without being counted in the
    ledger. The workers exchange whole models, so the method takes no compressor.
    """

    compressible = False
    centre_by: ClassVar[Exchange] = ALL_REDUCE  # how x_C comes to all, after a number of each worker
    average_is_current = True  # whether ``average`` is that of the last exchange
    pull: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.pull <= 1:
            raise ValueError(f"pull={self.pull}: out of range; give a number in (0, 1] such as 0.1")
        if self.delay:
            raise ValueError(f"delay={self.delay}: the pull needs two exchanges one after the other; give 0")

    def sends(self, t: int, shapes: Mapping[str, Sequence[int]], dim: int, codec: Compressor) -> list[Sent]:
        """Without the average of the last rounds where there is no push."""
        (part,) = super().sends(t, shapes, dim, codec)
        numbers, centre = Sent(1, whole=True, exchange=ALL_GATHER), Sent(part.dim, whole=True, exchange=self.centre_by)
        average = [Sent(part.dim, whole=True, exchange=ALL_REDUCE)] if self.push else []
        return [*average, numbers, centre]

    def exchange(self, t: int) -> None:
        part, rounds = self.part(t), len(self.ends) - 1
        x = part.take(self.x)
        self.average_is_current = bool(self.push) or t + 1 == rounds
        if self.push or t + self.fragments >= rounds:
            self.average = part.replaced(self.average, self.context.comm.mean(x))
        self.pull_and_push(t, x, part.take(self.average), self.centre(t, x), self.pull)

    def merge(self, t: int, average: Tensor, departed: Tensor) -> None:
        raise NotImplementedError("the exchange moves the workers")

    @abstractmethod
    def centre(self, t: int, x: Tensor) -> Tensor:
        """x_C of round t's fragment, [J_p]; ``x``: the x_n of the fragment, [W, J_p]."""

    def centre_of_workers(self) -> Tensor:
        if not self.average_is_current and self.before_exchange is not None:
            self.average, self.average_is_current = self.context.comm.watched_mean(self.before_exchange), True
        return self.average
