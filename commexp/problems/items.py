"""Samples that a user brings: tensors in memory, or a torch Dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, default_collate

from commexp.problems.trees import Tree, tensors, tree_map

SEEN = 64  # samples of a Dataset that its digest is of


class Items:
    """``source``: a tree of tensors [m, ...] or arrays; a TensorDataset; a list of samples, each a tuple or dict, or
    any torch Dataset with a length, whose samples are collated as DataLoader does; or an IterableDataset with a length,
    which is read once, whole, into memory.
    ``tree``: the tensors where the samples lie in memory; None where they are read one by one from ``dataset``.
    Raises ValueError for no samples, tensors of different lengths, and a Dataset without a length; ``part`` is what the
    message calls it, train or test.
    """

    def __init__(self, source: Any, part: str = "train") -> None:
        self.tree: Tree = None
        self.dataset: Any = None
        if isinstance(source, TensorDataset):
            source = source.tensors if len(source.tensors) > 1 else source.tensors[0]
        if isinstance(source, IterableDataset):
            _check_length(source, part)
            source = default_collate(list(islice(source, len(source))))  # type: ignore[arg-type]
        if isinstance(source, Dataset) or _is_map(source):
            _check_length(source, part)
            self.dataset, self.length = source, len(source)
            self.first = self._tried(part) if self.length else None
        else:
            self.tree = tree_map(lambda t: t.detach().cpu(), _as_tensors(source, part))
            lengths = {len(t) if t.ndim else 0 for t in tensors(self.tree)}
            if len(lengths) != 1:
                raise ValueError(f"{part}: tensors of {sorted(lengths)} samples; give all the same number")
            self.length = lengths.pop()
            self.first = tree_map(lambda t: t[:1], self.tree)
        if not self.length:
            raise ValueError(f"{part}: no samples; give one or more")
        one = next(tensors(self.first), None)
        if one is None:
            raise ValueError(f"{part}: the samples hold no tensor or number; give some that do")
        self.shape = (self.length, *one.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.length

    @property
    def targets(self) -> Tensor | None:
        """All targets [m, ...] of samples in memory that are pairs of inputs and targets; of a Dataset of pairs, those
        of its first sample, which show their type and shape; None for any other samples."""
        pair = self.first if self.tree is None else self.tree
        return pair[1] if isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[1], Tensor) else None

    def take(self, rows: Tensor) -> Tree:
        """The samples ``rows`` [k], on the CPU."""
        if self.tree is not None:
            return tree_map(lambda t: t[rows], self.tree)
        return self._collated(rows.tolist())

    def part(self, rows: Tensor) -> Items:
        """The samples ``rows`` alone."""
        if self.tree is not None:
            return Items(self.take(rows), "train")
        return Items(Subset(self.dataset, rows.tolist()), "train")

    def digest(self) -> str:
        """16 hex digits of the samples' BLAKE2b; of a Dataset, of its length and SEEN samples, evenly spread."""
        digest = hashlib.blake2b(str(self.length).encode(), digest_size=8)
        if self.tree is not None:
            _hash(digest, self.tree)
        else:
            for row in torch.linspace(0, self.length - 1, min(SEEN, self.length), dtype=torch.float64).long().tolist():
                _hash(digest, self.dataset[row])
        return digest.hexdigest()

    def _tried(self, part: str) -> Tree:
        """The first sample. Raises ValueError where it cannot be read, or holds what is not collated."""
        try:
            return self._collated([0])
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ValueError(
                f"{part}: the first sample cannot be taken ({why}); give tensors, numbers or arrays"
            ) from error

    def _collated(self, rows: list[int]) -> Tree:
        return default_collate([self.dataset[i] for i in rows])


def _is_map(source: Any) -> bool:
    """Whether it is asked for samples one by one, as a list of samples is."""
    if isinstance(source, list):
        return all(isinstance(each, tuple | Mapping) for each in source)
    alike = isinstance(source, Tensor | tuple | Mapping | str | bytes) or hasattr(source, "__array__")
    return hasattr(source, "__getitem__") and not alike


def _check_length(source: Any, part: str) -> None:
    try:
        len(source)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"{part}: a {type(source).__name__} without a length; give it __len__") from error


def _as_tensors(source: Any, part: str) -> Tree:
    if isinstance(source, Tensor):
        return source
    if isinstance(source, Mapping):
        return {key: _as_tensors(value, part) for key, value in source.items()}
    if isinstance(source, tuple | list):
        return tuple(_as_tensors(value, part) for value in source)
    try:
        return torch.as_tensor(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{part}: a {type(source).__name__}; give a torch Dataset, or tensors") from error


def _hash(digest: Any, tree: Tree) -> None:
    """Types, shapes and values; what is no tensor by its text."""
    if isinstance(tree, Tensor):
        content = tree.detach().cpu().contiguous()
        digest.update(f"{content.dtype} {list(content.shape)}".encode())
        digest.update(content.flatten().view(torch.uint8).numpy().tobytes() if content.numel() else b"")
    elif isinstance(tree, Mapping):
        for key in tree:
            digest.update(str(key).encode())
            _hash(digest, tree[key])
    elif isinstance(tree, tuple | list):
        for each in tree:
            _hash(digest, each)
    else:
        digest.update(str(tree).encode())
