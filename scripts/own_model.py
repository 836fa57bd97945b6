"""Your own network, data and loss under any method, from Python: python scripts/own_model.py

The same from the command line, where each of several processes makes its own model and data:

    PYTHONPATH=scripts commexp model=module model.factory=own_model.make_model dataset=module \
        dataset.factory=own_model.make_data loss=own_model.loss algo=diloco algo.tau=5 workers=4 steps=300 name=my-net
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import commexp

Part = tuple[Tensor, Tensor]


def make_model() -> nn.Module:
    """A small convolutional network with batch norm and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4),
    )  # fmt: skip


def make_data() -> tuple[Part, Part]:
    """Training and test images, 12 x 12 pixels: noise with a bar in one of four directions."""
    g = torch.Generator().manual_seed(0)
    directions, noise = torch.randint(4, (1200,), generator=g), torch.randn(1200, 1, 12, 12, generator=g)
    bars = torch.zeros(4, 12, 12)
    bars[0, 5:7], bars[1, :, 5:7], bars[2], bars[3] = 2, 2, 2 * torch.eye(12), 2 * torch.eye(12).flip(0)
    images = noise + bars[directions].unsqueeze(1)
    return (images[:1000], directions[:1000]), (images[1000:], directions[1000:])


def loss(module: nn.Module, batch: Part) -> Tensor:
    """The mean over the batch."""
    images, directions = batch
    return F.cross_entropy(module(images), directions, label_smoothing=0.05)


def accuracy(module: nn.Module, batch: Part) -> Tensor:
    images, directions = batch
    return (module(images).argmax(1) == directions).double().mean()


def main(overrides: list[str]) -> None:
    train, test = make_data()
    run = commexp.run(
        "algo=diloco", "algo.tau=5", "workers=4", "steps=300", "eval_every=50", *overrides,
        model=make_model,
        train=train, test=test,
        loss=loss,
        metrics={"accuracy": accuracy},
        name="my-net",
    )  # fmt: skip
    print(run.metrics[["step", "train_loss", "test_loss", "test_accuracy", "bytes_sent"]].to_string(index=False))
    print(f"\n{run.folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
