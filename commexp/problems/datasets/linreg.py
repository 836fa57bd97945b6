"""The linear regression of the RegTop-k paper, and variants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from commexp.problems.data import Data, Dataset
from commexp.seeding import generator


@dataclass
class LinReg(Dataset):
    """Workers n = 1..N, each with its own true parameter t_n, and columns of features with different scales:

        u_n ~ N(0, shift_variance), a scalar;   t_n = c + u_n + N(0, own_variance I_J);   c ~ N(0, common_variance I_J)
        X_n ~ N(0, 1)^{D x J} diag(s),   s_j = condition^(-j / (2 (J-1))) for j = 0..J-1
        y_n = X_n t_n + N(0, noise_variance)

    so that the Hessian of F has eigenvalues from about 2 down to 2/condition. ``dim``: J. ``samples``: D per worker.
    ``own_variance``: of each worker's own part of t_n. ``common_variance``: of c, the part that all have.
    ``condition``: of the features' covariance. ``shift_variance``, ``noise_variance``: see the formulas.
    With the defaults (no c, condition 1): Bereyhi et al., arXiv 2501.05633, section on linear regression; the other
    options are ours. Raises ValueError for sizes below 1, negative variances, or a condition below 1.
    """

    dim: int = 100
    samples: int = 500
    shift_variance: float = 5.0
    noise_variance: float = 0.5
    own_variance: float = 1.0
    common_variance: float = 0.0
    condition: float = 1.0

    def __post_init__(self) -> None:
        for name in ("dim", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must not be less than 1; give 1 or more")
        for name in ("shift_variance", "noise_variance", "own_variance", "common_variance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative; give 0 or more")
        if not self.condition >= 1:
            raise ValueError(f"condition={self.condition}: must not be less than 1; give 1 for columns of equal size")

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        features, targets = [], []
        common = math.sqrt(self.common_variance) * torch.randn(
            self.dim, generator=generator(seed, "linreg", "common"), dtype=dtype
        )
        sizes = self.condition ** (-torch.arange(self.dim, dtype=dtype) / (2 * max(1, self.dim - 1)))
        for n in range(workers):
            g = generator(seed, "linreg", n)

            def normal(*shape: int, g: torch.Generator = g) -> torch.Tensor:
                return torch.randn(*shape, generator=g, dtype=dtype)

            shift = math.sqrt(self.shift_variance) * normal(1)
            truth = common + shift + math.sqrt(self.own_variance) * normal(self.dim)
            x = normal(self.samples, self.dim) * sizes
            features.append(x)
            targets.append(x @ truth + math.sqrt(self.noise_variance) * normal(self.samples))
        parts = list(torch.arange(workers * self.samples).view(workers, -1))
        return Data(torch.cat(features), torch.cat(targets), shards=parts)
