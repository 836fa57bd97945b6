"""A stream of tokens as samples for language models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Tokens:
    """Windows of ``block`` tokens: sample i = 0, 1, ... begins at token i ``block``, and its targets are the tokens one
    further on. ``stream``: the tokens, a vector of uint8, uint16 or uint32, in memory or a memory map. ``vocabulary``:
    how many different tokens there are. ``bytes_per_token``: of the text, on average, None if unknown.
    Raises ValueError for a stream that is shorter than one window.
    """

    stream: np.ndarray
    block: int
    vocabulary: int
    bytes_per_token: float | None = None

    def __post_init__(self) -> None:
        if len(self.stream) <= self.block:
            raise ValueError(
                f"dataset.block={self.block}: longer than the text, which has {len(self.stream)} tokens; give "
                f"{max(1, len(self.stream) - 1)} or less"
            )

    def __len__(self) -> int:
        return (len(self.stream) - 1) // self.block

    @property
    def shape(self) -> tuple[int, int]:
        """(samples, block)."""
        return len(self), self.block

    @property
    def ndim(self) -> int:
        return 2

    def windows(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the windows that begin at the tokens ``starts`` [...]: int64 [..., block] each, on the
        CPU. Raises ValueError for a token that is not in the vocabulary."""
        places = starts.unsqueeze(-1).numpy() + np.arange(self.block + 1)
        tokens = torch.from_numpy(self.stream[places].astype(np.int64))
        if tokens.numel() and int(tokens.max()) >= self.vocabulary:
            raise ValueError(
                f"dataset.vocabulary={self.vocabulary}: the text has the token {int(tokens.max())}; give at least "
                f"{int(tokens.max()) + 1}, or null"
            )
        return tokens[..., :-1], tokens[..., 1:]
