"""The barrier that asynchronous exchange does without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from commexp.algorithms.asynchronous.async_ps import AsyncPS


@dataclass
class SyncPS(AsyncPS):
    """The local work of async_ps, and a server that waits for all: x <- sum_n pi_n z_n. The fields: see AsyncPS."""

    overwrites = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregation != "latest":
            raise ValueError(f"aggregation={self.aggregation}: with a barrier all count; leave it out")

    def expected(self) -> Sequence[int]:
        return self.workers.arrivals(range(self.context.comm.size))

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        return [len(self.steps) * batches for batches in super().batches_of(lengths)]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        return [len(self.steps) * gradients for gradients in super().gradients_of(lengths)]
