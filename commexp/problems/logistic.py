"""Binary logistic regression without an intercept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from commexp.problems.base import Problem, Ready, Setting
from commexp.problems.data import Data


class Logistic(Problem):
    """f_n(x) = mean_i log(1 + exp(-y_i a_i^T x)) over worker n's samples, y_i = -1 or 1; full-batch gradients.

    Raises ValueError if the workers' shares differ in size. Starts at ``start`` [J], or at zero.
    Metric: train_loss = mean_n f_n(x).
    """

    def __init__(self, data: Data, setting: Setting, start: Sequence[float] | None) -> None:
        if len({len(rows) for rows in setting.parts}) > 1:
            raise ValueError("partition: logistic regression takes full batches of equal shares; give partition=iid")
        rows = torch.stack(list(setting.parts))
        signed: Tensor = data.train_x[rows] * data.train_y[rows].unsqueeze(-1)  # y_i a_i, [N, D, J]
        self.everyone = signed.to(setting.device)
        self.signed: Tensor = self.everyone[list(setting.worker_ids)]
        self.deterministic = setting.deterministic
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

    def loss_and_grad(self, x: Tensor, batch: object, ready: Ready | None = None) -> tuple[Tensor, Tensor]:
        if self.deterministic and len(x) > 1:
            each = [self._of(a[None], row[None]) for a, row in zip(self.signed, x, strict=True)]
            return torch.cat([loss for loss, _ in each]), torch.cat([grad for _, grad in each])
        return self._of(self.signed, x)

    @staticmethod
    def _of(signed: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        margin = torch.bmm(signed, x[..., None]).squeeze(-1)
        slope = -torch.sigmoid(-margin) / margin.shape[1]
        return F.softplus(-margin).mean(1), torch.bmm(slope[:, None], signed).squeeze(1)

    def common_gradient(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        each = [self.training_gradient(row) for row in x]
        return torch.stack([x.new_tensor(loss) for loss, _ in each]), torch.stack([grad for _, grad in each])

    def training_gradient(self, x: Tensor) -> tuple[float, Tensor]:
        losses, gradients = self._of(self.everyone, x.expand(len(self.everyone), -1))
        return float(losses.mean()), gradients.mean(0)

    def evaluate(self, x: Tensor) -> dict[str, float]:
        return {"train_loss": self.training_gradient(x)[0]}
