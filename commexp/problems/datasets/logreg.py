"""A synthetic logistic regression whose workers differ in scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from commexp.problems.data import Data, Dataset
from commexp.seeding import generator


@dataclass
class LogReg(Dataset):
    """Workers n = 0..N-1 with ``samples`` each, of features of different scales and, if wanted, unlike labels:

        s_n = spread^((n / (N-1) - 1) / 2)          so that the largest L_n is about ``spread`` times the smallest
        t_n = c + N(0, own_variance I_J);           c ~ N(0, I_J)
        a   ~ s_n N(0, diag(c_j)) / sqrt(mean_j c_j),   c_j = condition^(-j / (J-1)), j = 0..J-1
        y   = 1 with probability sigmoid(a^T t_n / sqrt(J)), else 0

    ``dim``: J. Ours; such problems are usual in papers on compressed gradients, which scale the L_n of workers by hand.
    Raises ValueError for sizes below 1, a spread or condition below 1, a negative variance.
    """

    dim: int = 300
    samples: int = 50
    spread: float = 10.0
    condition: float = 1.0
    own_variance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dim", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must not be less than 1; give 1 or more")
        for name in ("spread", "condition"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must not be less than 1; give 1 for no difference")
        if not self.own_variance >= 0:
            raise ValueError(f"own_variance={self.own_variance}: must not be negative; give 0 or more")

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        common = torch.randn(self.dim, generator=generator(seed, "logreg", "common"), dtype=dtype)
        scales = self.condition ** (-torch.arange(self.dim, dtype=dtype) / max(1, self.dim - 1))
        scales = (scales / scales.mean()).sqrt()
        features, labels = [], []
        for n in range(workers):
            g = generator(seed, "logreg", n)
            size = self.spread ** ((n / max(1, workers - 1) - 1) / 2)
            truth = common + math.sqrt(self.own_variance) * torch.randn(self.dim, generator=g, dtype=dtype)
            x = size * scales * torch.randn(self.samples, self.dim, generator=g, dtype=dtype)
            likely = torch.sigmoid(x @ truth / math.sqrt(self.dim))
            features.append(x)
            labels.append((torch.rand(self.samples, generator=g, dtype=dtype) < likely).long())
        parts = list(torch.arange(workers * self.samples).view(workers, -1))
        return Data(torch.cat(features), torch.cat(labels), classes=2, shards=parts)
