"""Two workers whose large gradients cancel, so that Top-k stagnates."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from commexp.problems.data import Data, Dataset


@dataclass
class Toy(Dataset):
    """Worker 1 holds (``size``, 1), worker 2 holds (-``size``, 1), both labelled 1. The gradients are
    large and cancel along the first axis; they are small and agree along the second.
    Source: Bereyhi et al., arXiv 2501.05633, the two-worker logistic example (size = 100).
    """

    size: float = 100.0

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        if workers != 2:
            raise ValueError(f"workers={workers}: the toy has two workers; give workers=2")
        x = torch.tensor([[self.size, 1.0], [-self.size, 1.0]], dtype=dtype)
        return Data(x, torch.ones(2, dtype=dtype), shards=[torch.tensor([0]), torch.tensor([1])])
