"""State as named tensors: a part's names stand below the part's own name, ``part.name``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every name below ``prefix.``."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def under_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries below ``prefix.``, without it."""
    start = prefix + "."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
