"""Stale synchronous parallel exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.asynchronous import Asynchronous


@dataclass
class SSP(Asynchronous):
    """Every worker sends what its local steps have moved, and the server adds it up:

        x <- x + pi_n C(z - x_n)

    Worker n goes on only while it is at most ``bound`` messages ahead of the slowest; else it waits. bound = 0 is a
    barrier. The fields: see Asynchronous. Source: Ho et al., More effective distributed ML via a stale synchronous
    parallel parameter server, NIPS 2013. Raises ValueError for a negative bound.
    """

    bound: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bound < 0:
            raise ValueError(f"bound={self.bound}: must not be negative; give how many messages one may be ahead")

    def begin(self) -> None:
        self.given = [0] * len(self.steps)  # messages of each worker that the server has had
        self.waiting: list[int] = []

    def work(self, n: int) -> Tensor:
        return self.local(n, self.sent[n]) - self.sent[n]

    def gradients_for(self, n: int) -> float:
        return self.local_gradients(n)

    def receive(self, n: int, moved: Tensor) -> None:
        self.x = self.x + self.pi[n] * moved
        self.given[n] += 1

    def answered(self, came: Sequence[int]) -> Sequence[int]:
        free = sorted([*self.waiting, *came])
        slowest = min(self.given)
        self.waiting = [n for n in free if self.given[n] - slowest > self.bound]
        return [n for n in free if n not in self.waiting]

    def rows(self) -> dict[str, Tensor]:
        return {"given": torch.tensor(self.given), "waiting": torch.tensor(self.waiting, dtype=torch.int64)}

    def load_rows(self, rows: dict[str, Tensor]) -> None:  # type: ignore[override]
        self.given, self.waiting = rows["given"].tolist(), rows["waiting"].tolist()
