"""A user's own functions, as they would stand in a module of theirs, for tests of problems, api and launch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from commexp.problems.trees import Tree


class Net(nn.Module):
    """Batch norm, dropout, a buffer, tied weights and a frozen parameter."""

    mask: Tensor

    def __init__(self, rate: float = 0.25, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, width), nn.Linear(width, width)
        self.third = nn.Linear(width, width)
        self.third.weight = self.second.weight
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(rate)
        self.register_buffer("mask", torch.tensor([1.0, 0.0] * 4))
        self.frozen = nn.Parameter(torch.randn(8), requires_grad=False)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x * self.mask + self.frozen))
        h = self.dropout(torch.relu(self.third(torch.relu(self.second(h)))))
        logits: Tensor = self.head(h)
        return logits


def make_model(rate: float = 0.25, width: int = 6) -> nn.Module:
    return Net(rate, width)


def make_plain() -> nn.Module:
    """What can be folded."""
    return nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def make_data(samples: int = 60) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(samples + 20, 8, generator=g)
    y = (x[:, :3] + 0.3 * torch.randn(samples + 20, 3, generator=g)).argmax(1)
    return (x[:samples], y[:samples]), (x[samples:], y[samples:])


def make_dicts(samples: int = 40) -> dict[str, dict[str, Tensor]]:
    """Batches as Hugging Face's libraries have them."""
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(7, (samples + 10, 5), generator=g)
    mask = (torch.rand(samples + 10, 5, generator=g) < 0.8).long()
    whole = {"input_ids": tokens, "attention_mask": mask, "labels": tokens.masked_fill(mask == 0, -100)}
    return {
        "train": {key: value[:samples] for key, value in whole.items()},
        "test": {key: value[samples:] for key, value in whole.items()},
    }


class Output:
    def __init__(self, loss: Tensor | None, logits: Tensor) -> None:
        self.loss, self.logits = loss, logits


class Masked(nn.Module):
    """Takes dicts, keeps integers integers, and returns its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Output:
        assert input_ids.dtype == attention_mask.dtype == torch.int64
        logits = self.head(self.embedding(input_ids) * attention_mask.unsqueeze(-1))
        if labels is None:
            return Output(None, logits)
        return Output(F.cross_entropy(logits.flatten(0, 1), labels.flatten()), logits)


def make_masked() -> nn.Module:
    return Masked()


class Noisy(Dataset[tuple[Tensor, int]]):
    """Map-style, with augmentation from all three global generators."""

    def __init__(self, samples: int) -> None:
        (self.x, self.y), _ = make_data(samples)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        import random

        return self.x[i] + 0.1 * torch.randn(8) + random.random() / 10 + float(np.random.rand()) / 10, int(self.y[i])


class Streamed(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, samples: int) -> None:
        (self.x, self.y), _ = make_data(samples)

    def __len__(self) -> int:
        return len(self.x)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(zip(self.x, self.y, strict=True))


class Broken(Dataset[Tensor]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Tensor:
        raise OSError("the disk is gone")


class Endless(IterableDataset[Tensor]):
    def __iter__(self):  # type: ignore[no-untyped-def]
        while True:
            yield torch.zeros(8)


def loss(module: nn.Module, batch: Tree) -> Tensor:
    x, y = batch
    return F.cross_entropy(module(x), y, label_smoothing=0.1)


def margin(module: nn.Module, batch: Tree) -> Tensor:
    x, y = batch
    logits = module(x)
    return (logits.gather(1, y[:, None]) - logits.mean(1, keepdim=True)).mean()
