"""Batches: a tensor, or tuples, lists and dicts of tensors, nested; every tensor has the samples on its first axis.

A batch of W workers has the workers on the first axis and their samples on the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Tree = Any  # a Tensor, or a tuple, list or mapping of Trees


def tree_map(change: Callable[[Tensor], Any], tree: Tree) -> Any:
    """The same structure, with ``change`` of every tensor. Mappings become dicts; what is no tensor stays as it is."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: tree_map(change, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):  # a named tuple
        return type(tree)(*(tree_map(change, value) for value in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(tree_map(change, value) for value in tree)
    return tree


def tensors(tree: Tree) -> Iterator[Tensor]:
    """Every tensor of the tree, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from tensors(value)


def joined(trees: Sequence[Tree]) -> Tree:
    """Batches of one structure, one after the other."""
    if len(trees) == 1:
        return trees[0]
    columns = [iter(list(tensors(tree))) for tree in trees]
    return tree_map(lambda _: torch.cat([next(column) for column in columns]), trees[0])


def count_samples(batch: Tree) -> int:
    """The length of the first axis."""
    return len(next(tensors(batch)))
