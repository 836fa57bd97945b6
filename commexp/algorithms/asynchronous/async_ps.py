"""Asynchronous exchange of parameters through a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from commexp.algorithms.asynchronous.asynchronous import Asynchronous

AGGREGATIONS = ("latest", "pairwise")


@dataclass
class AsyncPS(Asynchronous):
    """Worker n, for ever: z <- ``iterations`` local steps on f_n from x_n, the x that it was sent last; it sends
    x_n + C(z - x_n), C the compressor, and does not wait. The server, on each message, keeps the LAST parameter w_n
    that it has had from each worker, so that a fast one cannot dominate and there is no delay to tune:

        latest      x <- x + pi_n (z - w_n);   w_n <- z;   x goes back to worker n       x = sum_n pi_n w_n at all times
        pairwise    x <- (x + z)/2;            w_n <- z;   x goes back to worker n

    w_n = x_0 at first. A worker that is lost (ours): x is the mean of the others, their weights scaled to 1, for a w_n
    that stood still would draw x to itself as steps decrease; one that comes back begins with w_n = x.
    ``disagreement``: max_n ||w_n - x||. ``aggregation``: latest or pairwise. The fields: see Asynchronous.
    Source: Joshi, Iutzeler and Amini, arXiv 1705.07751. Raises ValueError for another ``aggregation``.
    """

    overwrites = True
    aggregation: str = "latest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation={self.aggregation}: unknown; give latest or pairwise")

    def begin(self) -> None:
        self.last = self.sent.clone()

    def share(self, n: int) -> float:
        """Weight of worker n among those that are there."""
        return float(self.pi[n] / sum(self.pi[m] for m in self.living())) if self.away else self.pi[n]

    def receive(self, n: int, moved: Tensor) -> None:
        z = self.sent[n] + moved
        self.x = self.x + self.share(n) * (z - self.last[n]) if self.aggregation == "latest" else (self.x + z) / 2
        self.last[n] = z

    def lost(self, n: int) -> None:
        share = self.share(n)
        if self.aggregation == "latest" and share < 1:
            self.x = (self.x - share * self.last[n]) / (1 - share)
        super().lost(n)

    def joined(self, n: int) -> None:
        if n in self.away:
            self.last[n] = self.x
        super().joined(n)

    def disagreement(self) -> float:
        return float((self.last - self.x)[self.living()].norm(dim=1).max())

    def rows(self) -> dict[str, Tensor]:
        return {"last": self.last}

    def load_rows(self, rows: Mapping[str, Tensor]) -> None:
        self.last = rows["last"]
