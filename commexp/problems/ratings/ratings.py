"""Synthetic ratings of low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.stratified import check_validation
from commexp.problems.ratings.triples import Triples, divided
from commexp.seeding import numpy_generator


@dataclass
class LowRank(Dataset):
    """``density`` x ``users`` x ``items`` ratings of distinct pairs, drawn uniformly, with

        r_ui = 3.5 + c_u + b_i + <u_u, v_i> + N(0, noise^2)

    c_u, b_i ~ N(0, 0.3^2) and entries of u_u, v_i ~ N(0, 1 / sqrt(rank)), so the inner products have variance 1. All
    values are functions of the seed. The share ``test``, drawn with the seed, is held out. ``validation``: a number of
    training ratings, drawn with the seed, that are not trained on and replace the test set, so that tuning does not use
    it. Raises ValueError for values out of range.
    """

    users: int = 300
    items: int = 200
    rank: int = 4
    density: float = 0.2
    noise: float = 0.3
    test: float = 0.2
    validation: int | None = field(default=None, metadata={"added": True})

    def __post_init__(self) -> None:
        for name in ("users", "items", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must not be less than 1; give 1 or more")
        if not 0 < self.density <= 1:
            raise ValueError(f"density={self.density}: out of range; give the share of pairs that are rated, in (0, 1]")
        if not self.noise >= 0:
            raise ValueError(f"noise={self.noise}: must not be negative; give 0 or more")
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.2")
        check_validation(self.validation)

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        rng = numpy_generator(seed, "ratings")
        pairs = rng.permutation(self.users * self.items)[: max(1, round(self.density * self.users * self.items))]
        u, i = np.divmod(pairs, self.items)
        scale = 1 / math.sqrt(math.sqrt(self.rank))
        factors = [rng.normal(0, scale, (size, self.rank)) for size in (self.users, self.items)]
        biases = [rng.normal(0, 0.3, size) for size in (self.users, self.items)]
        exact = 3.5 + biases[0][u] + biases[1][i] + (factors[0][u] * factors[1][i]).sum(1)
        triples = Triples(u, i, exact + rng.normal(0, self.noise, len(pairs)), np.zeros(len(pairs), dtype=np.int64))
        return divided(triples, self.test, "random", seed, dtype, self.validation)
