"""What a dataset hands over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Data:
    """Samples along the first axis. ``parts``: each worker's sample indices where the data come already split."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor | None = None
    test_y: Tensor | None = None
    classes: int | None = None
    parts: list[Tensor] | None = None


class Dataset(ABC):
    """A dataclass whose fields say which data; ``load`` reads or makes them."""

    @abstractmethod
    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        """Raises FileNotFoundError, saying where the file belongs and how to get it, and ValueError for a damaged
        file."""
