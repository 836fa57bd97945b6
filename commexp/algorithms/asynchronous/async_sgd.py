"""Asynchronous SGD: gradients pushed to a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from commexp.algorithms.asynchronous.asynchronous import Asynchronous
from commexp.algorithms.base import WorkItem

SNAPSHOT, FULL, ALL = 1, 2, 3  # what an item's body is: x as a snapshot; its full gradient; x, snapshot, full gradient


@dataclass
class AsyncSGD(Asynchronous):
    """Worker n, for ever: one gradient g of a batch at x_n, sent as C(g); the server, at its message c:

        x <- x - lr / (1 + decay c/N) N pi_n C(g)       with ``aware`` divided by 1 + age

    The age of g: updates of x since x_n was sent. A gradient older than ``bound`` is dropped (null: none is).
    ``solver`` svrg: in epochs of ``epoch`` updates (null: as many as there are batches in all) from a snapshot y = x,
    at which all workers first send their full gradients, so that the server knows grad F(y) = sum_n pi_n grad f_n(y);
    then g = grad f_b(x_n) - grad f_b(y) + grad F(y). Diagnostic: ``dropped``. ``iterations`` and ``slice`` have no
    meaning here; the other fields: see Asynchronous. Sources: Dean et al., NIPS 2012 (Downpour); Zhang et al., arXiv
    1511.05950 (aware); Reddi et al., arXiv 1506.06840 (asynchronous SVRG). Raises ValueError for values out of range.
    """

    iterations: int = 1
    bound: Optional[int] = None  # noqa: UP045
    aware: bool = False
    epoch: Optional[int] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations != 1 or self.slice is not None:
            raise ValueError(f"iterations={self.iterations}: every gradient is sent; give 1, and slice=null")
        if self.bound is not None and self.bound < 0:
            raise ValueError(f"bound={self.bound}: must not be negative; give the oldest age that counts, or null")
        if self.epoch is not None and self.epoch < 1:
            raise ValueError(f"epoch={self.epoch}: must not be less than 1; give updates, or null")

    def begin(self) -> None:
        workers = len(self.steps)
        self.dropped = self.updates = self.pushed = 0
        self.snapshot, self.full = self.x.clone(), torch.zeros_like(self.x)
        self.collecting = self.solver == "svrg"  # full gradients at the snapshot
        self.asked = [self.collecting] * workers  # for its full gradient
        self.collected: set[int] = set()  # those that have sent it, and wait
        self.fresh = set(range(workers))  # those that may know neither snapshot nor full gradient
        self.length = self.epoch or max(1, round(sum(self.workers.batches(n) for n in range(workers))))

    def item(self, n: int) -> WorkItem:
        """x; or what n does not know and cannot infer: x has not moved since the snapshot was taken where n is asked
        for its full gradient, or is sent the sum of all."""
        item = super().item(n)
        if self.solver == "sgd":
            return item
        if self.asked[n]:
            return item._replace(kind=SNAPSHOT)
        if n in self.fresh:
            return item._replace(kind=ALL, body=torch.cat([self.x, self.snapshot, self.full]))
        if n in self.collected:
            return item._replace(kind=FULL, body=self.full)
        return item

    def take(self, n: int, item: WorkItem) -> None:
        x = item.body
        if item.kind == SNAPSHOT:
            self.snapshot = x
        elif item.kind == FULL:
            self.full, x = x, self.snapshot
        elif item.kind == ALL:
            x, self.snapshot, self.full = x.chunk(3)
        self.asked[n] = item.kind == SNAPSHOT
        super().take(n, item._replace(body=x))

    def serve(self, n: int) -> None:
        super().serve(n)
        self.fresh.discard(n)
        self.collected.discard(n)

    def gradients_for(self, n: int) -> float:
        if self.solver == "sgd":
            return 1.0
        return self.workers.batches(n) if self.asked[n] else 2.0

    def work(self, n: int) -> Tensor:
        self.workers.select_worker(n)
        problem = self.context.problem
        if self.asked[n]:
            return problem.local_gradient(self.snapshot[None])[1][0].clone()
        batch = problem.batch(self.done[n])
        self.done[n] += 1
        gradient = problem.loss_and_grad(self.sent[n][None], batch)[1][0].clone()
        if self.solver == "svrg":
            gradient += self.full - problem.loss_and_grad(self.snapshot[None], batch)[1][0]
        return gradient

    def receive(self, n: int, gradient: Tensor) -> None:
        if self.asked[n]:
            self.full = self.full + self.pi[n] * gradient
            self.collected.add(n)
            return
        age = self.version - self.had[n]
        if self.collecting or (self.bound is not None and age > self.bound):
            self.dropped += 1
            return
        rate = self.rate(sum(self.calls)) / (1 + age if self.aware else 1)
        self.x = self.x - rate * len(self.pi) * self.pi[n] * gradient
        self.updates += 1
        self.pushed += 1

    def answered(self, came: Sequence[int]) -> Sequence[int]:
        if self.solver == "sgd":
            return came
        if not self.collecting and self.pushed >= self.length:
            self.pushed, self.collecting = 0, True
            self.snapshot, self.full = self.x.clone(), torch.zeros_like(self.x)
        if not self.collecting:
            return came
        if self.collected.issuperset(self.living()):
            self.collecting = False
            self.full = self.full / sum(self.pi[n] for n in self.collected) if self.away else self.full
            self.asked = [False] * len(self.asked)
            self.collected -= self.away
            return sorted(self.collected)
        asked = [n for n in came if n not in self.collected]
        for n in asked:
            self.asked[n] = True
        return asked

    def joined(self, n: int) -> None:
        self.fresh.add(n)
        super().joined(n)

    def batches_of(self, lengths: Sequence[int]) -> list[float]:
        return [n / len(self.steps) for n in lengths]

    def gradients_of(self, lengths: Sequence[int]) -> list[float]:
        return [(1 if self.solver == "sgd" else 2) * n / len(self.steps) for n in lengths]

    def full_gradients(self, n: int) -> float:
        return self.calls[n] - self.done[n]  # what was no gradient of a batch

    def diagnostics(self) -> dict[str, float]:
        return {**super().diagnostics(), "dropped": self.dropped}

    def rows(self) -> dict[str, Tensor]:
        counts = torch.tensor([self.dropped, self.updates, self.pushed, int(self.collecting)])
        kept = {"snapshot": self.snapshot.clone(), "full": self.full.clone()}  # they may be x, or a part of an item
        kept |= {"counts": counts, "asked": torch.tensor(self.asked)}
        return {**kept, "collected": torch.tensor(sorted(self.collected), dtype=torch.int64)}

    def load_rows(self, rows: Mapping[str, Tensor]) -> None:
        self.snapshot, self.full = rows["snapshot"], rows["full"]
        self.dropped, self.updates, self.pushed, collecting = rows["counts"].tolist()
        self.collecting, self.asked = bool(collecting), rows["asked"].tolist()
        self.collected = set(rows["collected"].tolist())
        self.fresh = set()
