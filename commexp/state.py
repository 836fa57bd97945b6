"""State as named tensors: a part's names stand below the part's own name, ``part.name``.

Tensors with a row for each worker stand below ``workers.``: ``part.workers.name``. All others are equal everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

LIKE_X = ("residual", "velocity", "mean", "square")  # last names of what has an entry for each of the model's


def with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every name below ``prefix.``."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def under_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries below ``prefix.``, without it."""
    start = prefix + "."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def has_workers(name: str) -> bool:
    """Whether the tensor of this name has a row for each worker."""
    return ".workers." in f".{name}"


class Stateful(Protocol):
    """What keeps something from round to round."""

    def state_dict(self) -> Mapping[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


def load_checked(part: Stateful, state: Mapping[str, Tensor], dim: int, workers: int) -> None:
    """Loads ``state`` into a part of which nothing has been asked yet, for a model of ``dim`` entries and ``workers``
    rows. Raises ValueError, or what the part raises, for state that no run of it can have left; it is as it was
    then."""
    begun = dict(part.state_dict())
    _check_shapes(state, begun, dim, workers)
    try:
        part.load_state_dict(state)
        if strange := part.state_dict().keys() ^ state.keys():
            raise ValueError(f"{min(strange)}: missing, or not known")
    except BaseException:
        part.load_state_dict(begun)
        raise


def _check_shapes(state: Mapping[str, Tensor], begun: Mapping[str, Tensor], dim: int, workers: int) -> None:
    """``begun``: the state before the first round. It may lack what is made in a round; what has no rows in it is a
    list, which may grow."""
    if missing := begun.keys() - state.keys():
        raise ValueError(f"{min(missing)}: missing")
    for name, tensor in state.items():
        like, shape = begun.get(name), list(tensor.shape)
        if like is not None:
            skip = int(like.ndim > 0 and len(like) == 0)
            fits = tensor.ndim == like.ndim and tensor.shape[skip:] == like.shape[skip:] and tensor.dtype == like.dtype
        else:
            kinds = {t.dtype for t in begun.values()} | {torch.int64}
            rows = workers if has_workers(name) else 1
            fits = tensor.dtype in kinds and tensor.numel() <= rows * dim
            fits &= shape[-1:] == [dim] or name.rpartition(".")[2] not in LIKE_X
            fits &= not has_workers(name) or shape[:1] == [workers]
        if not fits:
            raise ValueError(f"{name}: is {shape} of {tensor.dtype}")
        if not tensor.is_floating_point() and tensor.numel() and int(tensor.min()) < 0:
            raise ValueError(f"{name}: holds numbers below 0")
