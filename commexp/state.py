"""State as named tensors: a part's names stand below the part's own name, ``part.name``.

Tensors with a row for each worker stand below ``workers.``: ``part.workers.name``. All others are equal everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def with_prefix(prefix: str, state: Mapping[str, T]) -> dict[str, T]:
    """Every name below ``prefix.``."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def under_prefix(prefix: str, state: Mapping[str, T]) -> dict[str, T]:
    """The entries below ``prefix.``, without it."""
    start = prefix + "."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def has_workers(name: str) -> bool:
    """Whether the tensor of this name has a row for each worker."""
    return ".workers." in f".{name}"
