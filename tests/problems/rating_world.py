"""A small table of ratings, split over workers, and matrix factorisation written down once more in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from commexp.problems import Data
from commexp.problems.base import ProblemContext
from commexp.problems.datasets import ByUser, Iid, LowRank, Partition
from commexp.problems.models import MatrixFactorisation
from commexp.problems.ratings.factorisation import Factorisation

N, SEED, RANK, LAM = 3, 0, 3, 0.7
CPU = torch.device("cpu")


def world(density: float = 0.3) -> Data:
    """25 users, 12 items; the last user and the last item are in the test set alone."""
    data = LowRank(users=25, items=12, rank=2, density=density).load(N, SEED, torch.float64)
    keep = (data.train_x.users < 24) & (data.train_x.items < 11)
    data.train_x, data.train_y = data.train_x[keep], data.train_y[keep]
    return data


def problem(
    travels: str, data: Data | None = None, workers: int = N, ids: Any = None, partition: Partition | None = None,
    **fields: Any,
) -> Factorisation:  # fmt: skip
    data = data or world()
    partition = partition or (ByUser() if travels == "items" else Iid())
    context = {"batch_size": None, "deterministic": False, "dtype": torch.float64}
    context |= {name: fields.pop(name) for name in list(context) if name in fields}
    parts = partition.split(data, workers, SEED)
    made = MatrixFactorisation(**{"rank": RANK, "lam": LAM, "travels": travels, **fields}).problem(
        data, ProblemContext(parts, list(range(workers)) if ids is None else ids, seed=SEED, device=CPU, **context)
    )
    assert isinstance(made, Factorisation)
    return made


def spread(made: Factorisation, workers: int = N, seed: int = 1) -> torch.Tensor:
    """A place of its own for each worker, [W, J], every entry of it drawn."""
    return 0.5 * torch.randn(workers, made.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Plain:
    """F and f_n of worker n, one rating and one user at a time. ``rows``: the samples of a worker, None for all."""

    def __init__(self, data: Data, rank: int = RANK, lam: float = LAM, bias: bool = True) -> None:
        self.u, self.i = data.train_x.users.numpy(), data.train_x.items.numpy()
        self.y = data.train_y.numpy().astype(np.float64)
        self.y, self.mean = self.y - self.y.mean(), self.y.mean()
        self.users, self.items = data.train_x.n_users, data.train_x.n_items
        self.rank, self.lam, self.bias, self.m = rank, lam, bias, len(self.y)

    def guess(self, p: np.ndarray, q: np.ndarray) -> float:
        value = float(p[: self.rank] @ q[: self.rank])
        return value + p[self.rank] + q[self.rank] if self.bias else value

    def best(self, user: int, items: np.ndarray) -> np.ndarray:
        """The user's row that minimises, by least squares with the regulariser as further equations."""
        mine = np.flatnonzero(self.u == user)
        rated = items[self.i[mine]]
        a = np.column_stack([rated[:, : self.rank], np.ones(len(mine))]) if self.bias else rated
        y = self.y[mine] - (rated[:, self.rank] if self.bias else 0)
        width = a.shape[1]
        stacked = np.vstack([a, np.sqrt(self.lam) * np.eye(width)])
        return np.linalg.lstsq(stacked, np.concatenate([y, np.zeros(width)]), rcond=None)[0]

    def solved(self, items: np.ndarray) -> np.ndarray:
        rows = np.zeros((self.users, items.shape[1]))
        for user in np.unique(self.u):
            rows[user] = self.best(user, items)
        return rows

    def gradient(
        self, users: np.ndarray, items: np.ndarray, mine: np.ndarray, workers: int, whole_items: bool
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """f_n over the ratings ``mine``, and its gradient by both tables. ``whole_items``: the items' regulariser is
        everybody's, that of users is with the one worker who has them; else both are spread over ratings."""
        scale, loss = workers / self.m, 0.0
        by_user, by_item = np.zeros_like(users), np.zeros_like(items)
        for s in mine:
            u, i = self.u[s], self.i[s]
            error = self.y[s] - self.guess(users[u], items[i])
            share_u, share_i = self.lam / (self.u == u).sum(), 0.0 if whole_items else self.lam / (self.i == i).sum()
            loss += scale * (error**2 + share_u * users[u] @ users[u] + share_i * items[i] @ items[i])
            back_u, back_i = items[i].copy(), users[u].copy()
            back_u[self.rank :] = back_i[self.rank :] = 1
            by_user[u] += scale * (-2 * error * back_u + 2 * share_u * users[u])
            by_item[i] += scale * (-2 * error * back_i + 2 * share_i * items[i])
        if whole_items:
            rated = np.isin(np.arange(self.items), self.i)[:, None]
            loss += self.lam / self.m * float((rated * items**2).sum())
            by_item += 2 * self.lam / self.m * rated * items
        return loss, by_user, by_item
