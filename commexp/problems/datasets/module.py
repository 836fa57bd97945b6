"""A user's own samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from commexp.problems.data import Data, Dataset
from commexp.problems.items import Items
from commexp.problems.own import called, imported
from commexp.seeding import generator


@dataclass
class OwnDataset(Dataset):
    """Training and test samples that ``factory`` returns: the full name of a function, called with ``arguments``,
    which returns a pair (train, test), or a dict with these keys. Each is a tensor, a tuple or dict of tensors or
    arrays, or a torch Dataset with a length, see Items.

    Samples in memory that are pairs of inputs and classes can be split by class and go with any model. ``validation``:
    a number of training samples, the same for every seed, that are not trained on and replace the test set, so that
    tuning does not use it. ``digest``: of the samples, which are part of the run's name; of a Dataset that reads each
    sample when it is asked for, of its length and 64 samples. Raises ValueError for a factory that cannot be imported
    or fails, and for samples that are missing or of no use.
    """

    factory: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    validation: int | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if not (self.factory or self.digest):
            raise ValueError("factory=: empty; give the full name of a function that returns train and test samples")
        if self.validation is not None and self.validation < 1:
            raise ValueError(
                f"validation={self.validation}: must not be less than 1; give a number of training samples, or null"
            )
        self.parts: tuple[Items, Items] | None = None

    def resolve(self) -> None:
        """Imports and calls the factory. Called where the config is the user's own."""
        if not self.factory:
            return
        function = imported("dataset.factory", self.factory)
        found = called(f"dataset.factory={self.factory}", function, self.arguments)
        pair = (found.get("train"), found.get("test")) if isinstance(found, Mapping) else found
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ValueError(f"dataset.factory={self.factory}: returns no pair (train, test); return one")
        self.hand_over(*pair)

    def hand_over(self, train: Any, test: Any) -> None:
        """Takes the samples."""
        for name, part in (("train", train), ("test", test)):
            if part is None:
                raise ValueError(f"{name}: missing; give {name} samples" + " to judge models by" * (name == "test"))
        self.parts = Items(train), Items(test, "test")
        self.digest = "-".join(part.digest() for part in self.parts)

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        if self.parts is None:
            raise ValueError("dataset.digest: this run's samples were handed over from Python; run it from there")
        train, test = self.parts
        if self.validation is not None:
            if not 1 <= self.validation < len(train):
                raise ValueError(
                    f"dataset.validation={self.validation}: out of range; give 1 to {len(train) - 1} samples, or null"
                )
            order = torch.randperm(len(train), generator=generator(0, "validation"))
            train, test = train.part(order[self.validation :].sort().values), train.part(order[: self.validation])
        pairs = [pair_of(items) for items in (train, test)]
        if pairs[0] is None or pairs[1] is None:
            return Data(train, torch.empty(0), test)
        (train_x, train_y), (test_x, test_y) = pairs[0], pairs[1]
        if train_y.is_floating_point():
            return Data(train_x.to(dtype), train_y.to(dtype), test_x.to(dtype), test_y.to(dtype))
        least = min(int(y.min()) for y in (train_y, test_y))
        if least < 0:
            raise ValueError(f"train: a class of {least}; give classes 0, 1, ...")
        classes = 1 + max(int(y.max()) for y in (train_y, test_y))
        return Data(train_x.to(dtype), train_y.long(), test_x.to(dtype), test_y.long(), classes=classes)


def pair_of(items: Items) -> tuple[Tensor, Tensor] | None:
    """Samples in memory that are real inputs and one class or number each; None for any others."""
    tree = items.tree
    if not (isinstance(tree, tuple) and len(tree) == 2 and all(isinstance(t, Tensor) for t in tree)):
        return None
    x, y = tree
    return (x, y) if x.is_floating_point() and x.ndim > 1 and y.ndim == 1 else None
