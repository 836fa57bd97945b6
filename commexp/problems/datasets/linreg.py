"""The linear regression of the RegTop-k paper."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from commexp.problems.data import Data, Dataset
from commexp.seeding import generator


@dataclass
class LinReg(Dataset):
    """Workers n = 1..N, each with its own truth:

        u_n ~ N(0, shift_variance), a scalar;   t_n = u_n + N(0, I_J);   X_n ~ N(0, 1)^{D x J}
        y_n = X_n t_n + N(0, noise_variance)

    ``dim``: J. ``samples``: D per worker. Source: Bereyhi et al., arXiv 2501.05633, section on linear regression.
    Raises ValueError for sizes below 1 or negative variances.
    """

    dim: int = 100
    samples: int = 500
    shift_variance: float = 5.0
    noise_variance: float = 0.5

    def __post_init__(self) -> None:
        for name in ("dim", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must not be less than 1; give 1 or more")
        for name in ("shift_variance", "noise_variance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative; give 0 or more")

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        features, targets = [], []
        for n in range(workers):
            g = generator(seed, "linreg", n)

            def normal(*shape: int, g: torch.Generator = g) -> torch.Tensor:
                return torch.randn(*shape, generator=g, dtype=dtype)

            truth = math.sqrt(self.shift_variance) * normal(1) + normal(self.dim)
            x = normal(self.samples, self.dim)
            features.append(x)
            targets.append(x @ truth + math.sqrt(self.noise_variance) * normal(self.samples))
        parts = list(torch.arange(workers * self.samples).view(workers, -1))
        return Data(torch.cat(features), torch.cat(targets), parts=parts)
