"""Matrix factorisation whose parameters are the factors of items; those of users are solved for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.ratings.data import Ratings
from commexp.problems.ratings.factorisation import CHUNK, Factorisation, WeightedBatch, add_rows, gather_rows

SHORT = 32  # users with at most so many ratings form one group


class ItemFactors(Factorisation):
    """x = (V, b), a row per item. A sample is a user with all ratings; each user belongs to one worker. With the rows
    a_i = (v_i, 1), y_i = r_ui - mu - b_i for the items i that user u has rated, and w = (u_u, c_u),

        f_n(x) = (lam/m) (|V|^2 + |b|^2) + (N/m) sum_u min_w [ sum_i (y_i - <a_i, w>)^2 + lam |w|^2 ]

    The minimum is at (A^T A + lam I)^-1 A^T y, so workers keep no factors of users, and the gradient of f_n is the
    partial gradient with respect to V and b at that minimum (envelope theorem). lam must be positive. The losses of a
    batch of users are scaled so that their expectation is that of f_n; the regulariser of V and b is always included in
    full. Source: variable projection, Golub and Pereyra, Inverse Problems 19(2), 2003. For the rest see Factorisation.

    Raises ValueError if several workers hold ratings of the same user.
    """

    def __init__(self, data: Data, context: ProblemContext, rank: int, lam: float, bias: bool, start: float) -> None:
        refuse_cut_users(data.train_x, context)
        super().__init__(data, context, rank, lam, bias, start)
        order = torch.argsort(data.train_x.users, stable=True).to(self.device)
        self.items, self.targets = self.train[0].items[order], self.train[1][order]  # user by user
        self.starts = self.user_counts.cumsum(0) - self.user_counts
        self.decay = self.lam / self.count * self.rated.to(self.dtype)[:, None]

    def make_pools(self, train: Ratings) -> tuple[list[Tensor], Tensor]:
        return [torch.unique(train.users[rows]) for rows in self.context.own], torch.unique(train.users)

    def make_tables(self) -> dict[str, Tensor]:
        return {"items": self.item_counts}

    @property
    def gradient_flops(self) -> float:
        """For each of c ratings of a user, with rows of ``width`` = w entries: 2 w^2 of A^T A, and 2 w each of A^T y,
        of the residual and of the gradient. For each user w^3/3 of the Cholesky factorisation, and 2 w^2 of the two
        triangular systems. c is a mean over the users."""
        w, ratings = self.width, self.count / self.samples
        return ((2 * w**2 + 6 * w) * ratings + w**3 / 3 + 2 * w**2) * self.samples_per_step

    def gradients(self, rows: Tensor, batch: WeightedBatch) -> tuple[Tensor, Tensor]:
        losses = torch.stack([(self.decay * row.square()).sum() for row in rows])
        grads = torch.mul(rows, 2 * self.decay, out=torch.empty(rows.shape, dtype=self.dtype, device=self.device))
        flat = grads.view(-1, self.width)
        worker, users, weights = batch.flat(self.device)
        for chosen in self._groups_of_similar_counts(users):
            here = chosen.to(self.device)
            w, share = worker[here], weights[here].to(self.dtype)
            known, items, targets = self._rated_by(users[chosen])
            factors, errors = self._solved(gather_rows(rows, w[:, None], items), targets, known)
            loss = errors.square().sum(1) + self.lam * factors.square().sum(1)
            add_rows(losses, w, share * loss)
            slopes = -2 * share[:, None] * errors
            factors[:, self.rank :] = 1
            place = w[:, None] * rows.shape[1] + items
            add_rows(flat, place[known], (slopes[:, :, None] * factors[:, None])[known])
        return losses, grads

    def factors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        users = rows.new_zeros(len(self.user_counts), self.width)
        for chosen in self._groups_of_similar_counts(self.all_samples):
            known, items, targets = self._rated_by(self.all_samples[chosen])
            users[self.all_samples[chosen].to(self.device)] = self._solved(rows[items], targets, known)[0]
        return users, rows

    def _groups_of_similar_counts(self, users: Tensor) -> Iterator[Tensor]:
        """The indices of all ``users``, in groups with similar numbers of ratings."""
        counts = self.user_counts[users]
        order = torch.argsort(counts, descending=True, stable=True)
        left = counts[order]
        while len(order):
            longest = int(left[0])
            fitting = max(1, CHUNK // longest)
            size = min(fitting, int((left > (longest // 2 if longest > SHORT else 0)).sum()))
            yield order[:size]
            order, left = order[size:], left[size:]

    def _rated_by(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For g users, padded to the largest number L of ratings, [g, L] each: whether there is a rating (bool), its
        item, its target."""
        counts, starts = self.user_counts[users].to(self.device), self.starts[users].to(self.device)
        across = torch.arange(int(counts.max()), device=self.device)
        known = across < counts[:, None]
        place = torch.where(known, starts[:, None] + across, starts[:, None])
        return known, self.items[place], self.targets[place]

    def _solved(self, rows: Tensor, targets: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Items' rows [g, L, width], targets [g, L] and which of them are ``known`` [g, L] -> the minimisers w [g,
        width] and the residuals [g, L]; NaN if the Cholesky factorisation fails, as in a run that diverges."""
        rows = rows * known[:, :, None]
        targets = targets * known
        if self.bias:
            targets = targets - rows[:, :, self.rank]
            rows[:, :, self.rank] = known.to(self.dtype)
        gram = rows.mT @ rows
        gram.diagonal(dim1=1, dim2=2).add_(self.lam)
        root, failed = torch.linalg.cholesky_ex(gram)
        factors = torch.cholesky_solve(rows.mT @ targets[:, :, None], root)
        factors.masked_fill_(failed[:, None, None] > 0, torch.nan)
        return factors.squeeze(2), targets - (rows @ factors).squeeze(2)


def refuse_cut_users(train: Ratings, context: ProblemContext) -> None:
    """Raises ValueError if several workers hold ratings of the same user."""
    worker = torch.empty(len(train), dtype=torch.long)
    for n, rows in enumerate(context.shards):
        worker[rows] = n
    last = torch.empty(train.n_users, dtype=torch.long)
    last[train.users] = worker
    cut = (last[train.users] != worker).nonzero()
    if len(cut):
        user = int(train.users[cut[0, 0]])
        raise ValueError(
            f"model.travels=items: the partition gives the ratings of user number {user} to several workers; give "
            "partition=by_user, or model.travels=all"
        )
