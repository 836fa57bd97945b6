"""Stale synchronous parallel exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commexp.algorithms.asynchronous.asynchronous import Asynchronous


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

    def receive(self, n: int, moved: Tensor) -> None:
        self.x = self.x + self.pi[n] * moved
        self.given[n] += 1

    def answered(self, came: Sequence[int]) -> Sequence[int]:
        free = [n for n in sorted({*self.waiting, *came}) if n not in self.away]
        slowest = min(self.given[n] for n in self.living())
        self.waiting = [n for n in free if self.given[n] - slowest > self.bound]
        return [n for n in free if n not in self.waiting]

    def joined(self, n: int) -> None:
        """One that comes back begins with the slowest."""
        if n in self.away:
            self.given[n] = max(self.given[n], min((self.given[m] for m in self.living()), default=0))
        super().joined(n)

    def rows(self) -> dict[str, Tensor]:
        return {"given": torch.tensor(self.given), "waiting": torch.tensor(self.waiting, dtype=torch.int64)}

    def load_rows(self, rows: Mapping[str, Tensor]) -> None:
        self.given, self.waiting = rows["given"].tolist(), rows["waiting"].tolist()
