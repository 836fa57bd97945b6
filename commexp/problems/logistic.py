"""Binary logistic regression without an intercept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from commexp.problems.base import Problem
from commexp.problems.data import Data


class Logistic(Problem):
    """f_n(x) = mean_i log(1 + exp(-y_i a_i^T x)) over worker n's samples, y_i = -1 or 1; full-batch gradients.

    Raises ValueError if the workers' shares differ in size. Starts at ``start`` [J], or at zero.
    Metric: train_loss = mean_n f_n(x).
    """

    def __init__(
        self, data: Data, parts: Sequence[Tensor], start: Sequence[float] | None, device: torch.device
    ) -> None:
        if len({len(rows) for rows in parts}) > 1:
            raise ValueError("partition: logistic regression takes full batches of equal shares; give partition=iid")
        rows = torch.stack(list(parts))
        self.signed = (data.train_x[rows] * data.train_y[rows].unsqueeze(-1)).to(device)  # y_i a_i, [W, D, J]
        self.dim = self.signed.shape[2]
        self.shapes = {"x": (self.dim,)}
        self.samples = rows.numel()
        self.samples_per_step = rows.shape[1]
        if start is not None and len(start) != self.dim:
            raise ValueError(f"model.start={list(start)}: has {len(start)} entries; give {self.dim}")
        self.start = start

    def init(self, generator: torch.Generator) -> Tensor:
        zero = self.signed.new_zeros(self.dim)
        return zero if self.start is None else zero.copy_(torch.tensor(list(self.start)))

    def batch(self, step: int) -> None:
        return None

    def loss_and_grad(self, x: Tensor, batch: object) -> tuple[Tensor, Tensor]:
        margin = torch.bmm(self.signed, x[..., None]).squeeze(-1)
        slope = -torch.sigmoid(-margin) / margin.shape[1]
        return F.softplus(-margin).mean(1), torch.bmm(slope[:, None], self.signed).squeeze(1)

    def evaluate(self, x: Tensor) -> dict[str, float]:
        return {"train_loss": float(F.softplus(-(self.signed @ x)).mean())}
