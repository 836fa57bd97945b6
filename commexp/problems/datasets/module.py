"""A user's own samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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
    which returns a pair (train, test), or a dict with these keys and perhaps ``source``. Train and test are tensors,
    tuples or dicts of tensors or arrays, or torch Datasets with a length, see Items.

    ``source``: an id, a number or text, of where each training sample comes from, such as its writer, for
    partition=by_source; or the name of a column of samples that are dicts in memory, which is taken out of them.
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
        self.source: Tensor | None = None

    def resolve(self) -> None:
        """Imports and calls the factory. Called where the config is the user's own."""
        if not self.factory:
            return
        function = imported("dataset.factory", self.factory)
        found = called(f"dataset.factory={self.factory}", function, self.arguments)
        named = isinstance(found, Mapping)
        pair = (found.get("train"), found.get("test")) if named else found
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ValueError(f"dataset.factory={self.factory}: returns no pair (train, test); return one")
        train, test = pair
        self.hand_over(train, test, found.get("source") if named else None)

    def hand_over(self, train: Any, test: Any, source: Sequence[Any] | str | None = None) -> None:
        """Takes the samples, and the ids of their sources."""
        if isinstance(source, str):
            train, test, source = without_column(train, test, source)
        for name, part in (("train", train), ("test", test)):
            if part is None:
                raise ValueError(f"{name}: missing; give {name} samples" + " to judge models by" * (name == "test"))
        self.parts = Items(train), Items(test, "test")
        self.digest = "-".join(part.digest() for part in self.parts)
        if source is not None:
            ids = [id.item() if hasattr(id, "item") else id for id in source]
            if len(ids) != len(self.parts[0]):
                raise ValueError(f"source: {len(ids)} ids for {len(self.parts[0])} training samples; give one for each")
            known = {id: i for i, id in enumerate(sorted(set(ids), key=str))}
            self.source = torch.tensor([known[id] for id in ids])
            self.digest += "-" + hashlib.blake2b(repr(self.source.tolist()).encode(), digest_size=8).hexdigest()

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        if self.parts is None:
            raise ValueError("dataset.digest: this run's samples were handed over from Python; run it from there")
        (train, test), source = self.parts, self.source
        if self.validation is not None:
            if not 1 <= self.validation < len(train):
                raise ValueError(
                    f"dataset.validation={self.validation}: out of range; give 1 to {len(train) - 1} samples, or null"
                )
            order = torch.randperm(len(train), generator=generator(0, "validation"))
            kept = order[self.validation :].sort().values
            train, test = train.part(kept), train.part(order[: self.validation])
            source = None if source is None else source[kept]
        pairs = [pair_of(items) for items in (train, test)]
        if pairs[0] is None or pairs[1] is None:
            return Data(train, torch.empty(0), test, source=source)
        (train_x, train_y), (test_x, test_y) = pairs[0], pairs[1]
        if train_y.is_floating_point():
            return Data(train_x.to(dtype), train_y.to(dtype), test_x.to(dtype), test_y.to(dtype), source=source)
        least = min(int(y.min()) for y in (train_y, test_y))
        if least < 0:
            raise ValueError(f"train: a class of {least}; give classes 0, 1, ...")
        classes = 1 + max(int(y.max()) for y in (train_y, test_y))
        return Data(train_x.to(dtype), train_y.long(), test_x.to(dtype), test_y.long(), classes, source=source)


def without_column(train: Any, test: Any, name: str) -> tuple[Any, Any, Any]:
    """``train`` and ``test`` without the column of this name, and that of ``train``. Raises ValueError where it has
    none."""
    if not (isinstance(train, Mapping) and name in train):
        columns = f"; its columns are {', '.join(map(str, train))}" if isinstance(train, Mapping) else ""
        raise ValueError(f"source={name}: train has no such column{columns}; give one, or an id of each sample")
    parts = [
        {key: value for key, value in part.items() if key != name} if isinstance(part, Mapping) else part
        for part in (train, test)
    ]
    return (*parts, train[name])


def pair_of(items: Items) -> tuple[Tensor, Tensor] | None:
    """Samples in memory that are real inputs and one class or number each; None for any others."""
    tree = items.tree
    if not (isinstance(tree, tuple) and len(tree) == 2 and all(isinstance(t, Tensor) for t in tree)):
        return None
    x, y = tree
    return (x, y) if x.is_floating_point() and x.ndim > 1 and y.ndim == 1 else None
