"""Soft consensus towards a point that is not the average."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.local.soft_consensus import SoftConsensus


@dataclass
class NonAverageConsensus(SoftConsensus):
    """Soft consensus with an x_C of the concrete method's choice, pulled by ``pull``. The average x_A is exchanged
    only where it is needed: every round if there is a push, and once at the end of the run, for the model. In between
    evaluations look at the same average, that of the workers before they are pulled, without booking it. Whole models
    are exchanged, so there is nothing to compress.
    """

    compressible = False
    known = True  # whether ``average`` is that of the last exchange
    pull: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.pull <= 1:
            raise ValueError(f"pull={self.pull}: out of range; give a number in (0, 1] such as 0.1")

    def exchange(self, t: int) -> None:
        self.known = bool(self.push) or t + 2 == len(self.ends)
        if self.known:
            self.average = self.context.comm.mean(self.x)
        self.pull_and_push(t, self.centre(t), self.pull)

    @abstractmethod
    def centre(self, t: int) -> Tensor:
        """x_C, [J]."""

    def centre_of_workers(self) -> Tensor:
        if not self.known and self.before_exchange is not None:
            self.average, self.known = self.context.comm.watched_mean(self.before_exchange), True
        return self.average
