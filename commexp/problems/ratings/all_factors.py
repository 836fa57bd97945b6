"""Matrix factorisation whose parameters are the factors of users and of items."""

from __future__ import annotations

import torch
from torch import Tensor

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.ratings.data import Ratings
from commexp.problems.ratings.factorisation import CHUNK, Factorisation, WeightedBatch, add_rows, gather_rows


class AllFactors(Factorisation):
    """x = (U, c, V, b): a row per user, then a row per item. A sample is a rating (u, i), which any worker may hold:

        f_n(x) = (N/m) sum_(u,i) [ (r_ui - mu - c_u - b_i - <u_u, v_i>)^2 + lam (|p_u|^2 / m_u + |q_i|^2 / m_i) ]

    with the rows p_u = (u_u, c_u) and q_i = (v_i, b_i). m_u and m_i are the numbers of training ratings, over all
    workers, of user u and of item i. The terms of all ratings add up to the whole regulariser, and a batch only changes
    the rows of its ratings. For the rest see Factorisation.
    """

    def __init__(self, data: Data, context: ProblemContext, rank: int, lam: float, bias: bool, start: float) -> None:
        super().__init__(data, context, rank, lam, bias, start)
        counts = torch.cat(list(self.tables.values()))
        self.decay = self.lam / counts.clamp(min=1).to(self.device, self.dtype)  # of each row, for each of its ratings

    def make_pools(self, train: Ratings) -> tuple[list[Tensor], Tensor]:
        return self.context.own, torch.arange(len(train))

    def make_tables(self) -> dict[str, Tensor]:
        return {"users": self.user_counts, "items": self.item_counts}

    @property
    def gradient_flops(self) -> float:
        """6 rank for each rating: <u, v>, and the error times v and times u."""
        return 6 * self.rank * self.samples_per_step

    def gradients(self, rows: Tensor, batch: WeightedBatch) -> tuple[Tensor, Tensor]:
        losses = torch.zeros(len(batch), device=self.device, dtype=self.dtype)
        grads = torch.zeros(rows.shape, device=self.device, dtype=self.dtype)
        flat, height = grads.view(-1, self.width), rows.shape[1]
        worker, samples, weights = batch.flat(self.device)
        samples = samples.to(self.device)
        ratings, targets = self.train
        for w, s, share in zip(*(torch.split(each, CHUNK) for each in (worker, samples, weights)), strict=True):
            u, i = ratings.users[s], ratings.items[s] + ratings.n_users
            users, items, share = gather_rows(rows, w, u), gather_rows(rows, w, i), share.to(self.dtype)
            error = targets[s] - self.inner(users, items)
            decay_u, decay_i = self.decay[u], self.decay[i]
            loss = error.square() + decay_u * users.square().sum(1) + decay_i * items.square().sum(1)
            add_rows(losses, w, share * loss)
            for row, own, other, decay in ((u, users, items, decay_u), (i, items, users, decay_i)):
                back = other.clone()  # the derivative of the prediction with respect to the row
                back[:, self.rank :] = 1
                slope = decay[:, None] * own - error[:, None] * back
                add_rows(flat, w * height + row, 2 * share[:, None] * slope)
        return losses, grads

    def factors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        users = len(self.user_counts)
        return rows[:users], rows[users:]
