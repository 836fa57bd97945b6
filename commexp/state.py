"""State: what an object keeps from round to round, declared by names and saved as named tensors.

The names of a part stand below the part's own name, ``part.name``. Tensors with a row for each worker stand below
``workers.``: ``part.workers.name``. All other tensors are equal at all processes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

MISSING = object()
LIKE_X = ("residual", "velocity", "mean", "square")  # last names of what has an entry for each of the model's


def with_prefix(prefix: str, state: Mapping[str, T]) -> dict[str, T]:
    """Every name below ``prefix.``; the names as they are where the prefix is empty."""
    return {f"{prefix}.{name}" if prefix else name: value for name, value in state.items()}


def under_prefix(prefix: str, state: Mapping[str, T]) -> dict[str, T]:
    """The entries below ``prefix.``, without it; all entries where the prefix is empty."""
    start = f"{prefix}." if prefix else ""
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def has_workers(name: str) -> bool:
    """Whether the tensor of this name has a row for each worker."""
    return ".workers." in f".{name}"


class Stateful:
    """Saves and loads the attributes that its class declares, together with those that its base classes declare:

        state = "x round=_round compressor=context.compressor **buffers"
        worker_state = "residual"

    ``x``: the attribute x, saved as x. ``round=_round``: the attribute _round, saved as round. The names of
    ``worker_state`` are saved below ``workers.``: the tensors have a row for each worker. By the attribute's value,

        a Tensor, an int or a bool      is saved as    name
        a list of ints                                 name
        a list of Tensors                              name0, name1, ...
        an object with a state_dict                    name.*, and is loaded in place
        a mapping to any of these                      name.key; key alone where it is declared as ``**name``
        None                                           nothing

    A class with its own ``state_dict`` and ``load_state_dict`` need not declare anything.
    """

    state: ClassVar[str] = ""
    worker_state: ClassVar[str] = ""

    def state_dict(self) -> dict[str, Tensor]:
        """What the next round depends on. Tensors with a row per worker are named below ``workers.``."""
        state: dict[str, Tensor] = {}
        for name, path in declared(type(self)):  # type: ignore[arg-type]  # mypy takes a class for unhashable
            state |= _saved(name, attrgetter(path)(self))
        taken: set[int] = set()
        for name, tensor in state.items():
            memory = tensor.untyped_storage().data_ptr()
            if memory in taken or 0 in tensor.stride():  # a file holds no two tensors in the same memory
                state[name] = tensor.clone(memory_format=torch.contiguous_format)
            taken.add(memory)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from what ``state_dict`` gave. An attribute whose name is missing gets its class's value. Raises
        ValueError where the class has none, and for any state where nothing is declared."""
        names = declared(type(self))  # type: ignore[arg-type]
        if state and not names:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {sorted(state)}")
        for name, path in names:
            owner, _, attribute = path.rpartition(".")
            holder = attrgetter(owner)(self) if owner else self
            current = getattr(holder, attribute)
            value = _loaded(name, current, state)
            if value is MISSING:
                if not hasattr(type(holder), attribute):
                    raise ValueError(f"{name}: missing")
                value = getattr(type(holder), attribute)
            if value is not current:
                setattr(holder, attribute, value)


@cache
def declared(cls: type[Any]) -> tuple[tuple[str, str], ...]:
    """(name, path of the attribute) of everything that a class and its base classes declare."""
    pairs: dict[tuple[str, str], None] = {}
    for base in reversed(cls.__mro__):
        for prefix, words in (("", vars(base).get("state", "")), ("workers", vars(base).get("worker_state", ""))):
            for word in words.split():
                name, _, path = word.rpartition("=")
                name = "" if path.startswith("**") else name or path
                pairs[".".join(filter(None, (prefix, name))), path.removeprefix("**")] = None
    return tuple(pairs)


def _saved(name: str, value: Any) -> dict[str, Tensor]:
    if value is None:
        return {}
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, Mapping):
        return {k: v for key, each in value.items() for k, v in with_prefix(name, _saved(str(key), each)).items()}
    if isinstance(value, list) and any(isinstance(each, Tensor) for each in value):
        return {f"{name}{i}": each for i, each in enumerate(value)}
    if isinstance(value, int | list):
        return {} if value == [] else {name: torch.tensor(value)}
    return with_prefix(name, value.state_dict())


def _loaded(name: str, current: Any, state: Mapping[str, Tensor]) -> Any:
    """The new value of an attribute that holds ``current``; MISSING where ``state`` lacks its name."""
    if isinstance(current, Mapping):
        own = under_prefix(name, state)
        if not any(hasattr(each, "load_state_dict") for each in current.values()):
            return own
        for key, each in current.items():
            _loaded(str(key), each, own)
        return current
    if hasattr(current, "load_state_dict"):
        current.load_state_dict(under_prefix(name, state))
        return current
    if name not in state:
        return _numbered(name, state) if isinstance(current, list) else MISSING
    if isinstance(current, list):
        return state[name].tolist()
    return type(current)(state[name].item()) if isinstance(current, int) else state[name]


def _numbered(name: str, state: Mapping[str, Tensor]) -> list[Tensor]:
    """name0, name1, ... as far as they go."""
    tensors: list[Tensor] = []
    while (following := f"{name}{len(tensors)}") in state:
        tensors.append(state[following])
    return tensors


class HasState(Protocol):
    """What ``load_checked`` can load into."""

    def state_dict(self) -> Mapping[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


def worker_rows(part: HasState, chosen: Sequence[int] | None = None) -> dict[str, Tensor]:
    """A copy of the part's state per worker; of the ``chosen`` rows alone, if they are given."""
    state = {name: rows for name, rows in part.state_dict().items() if has_workers(name)}
    if chosen is None:
        return {name: rows.clone() for name, rows in state.items()}
    return {name: rows[list(chosen)] for name, rows in state.items()}


def put_rows(part: HasState, chosen: Sequence[int], new: Mapping[str, Tensor], workers: int) -> None:
    """Puts the ``new`` rows in the place of the ``chosen`` ones in the state of ``workers`` workers, whose other rows
    stay; an entry that is missing, here or there, means zero."""
    state, places = dict(part.state_dict()), list(chosen)
    for name, rows in {name: each for name, each in {**state, **new}.items() if has_workers(name)}.items():
        whole = state.get(name)
        whole = rows.new_zeros(workers, *rows.shape[1:]) if whole is None else whole
        whole[places] = new.get(name, torch.zeros_like(whole[places]))
        state[name] = whole
    part.load_state_dict(state)


def restore_rows(part: HasState, before: Mapping[str, Tensor], lost: Tensor) -> None:
    """Resets the state of the workers ``lost`` (bool [W]) to ``before``; a missing entry there means zero."""
    state = dict(part.state_dict())
    for name, rows in state.items():
        if has_workers(name):
            old = before.get(name, torch.zeros_like(rows))
            state[name] = torch.where(lost.to(rows.device).view(-1, *[1] * (rows.ndim - 1)), old, rows)
    part.load_state_dict(state)


def load_checked(
    part: HasState,
    state: Mapping[str, Tensor],
    dim: int,
    workers: int,
    fragments: Collection[int] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Loads ``state`` into a part of which nothing has been asked yet, for a model of ``dim`` entries and ``workers``
    rows, of which ``fragments`` of so many entries have state of their own. ``dtype``: of the model, where the part
    holds none of its numbers before the first round. Raises ValueError, or what the part raises, for state that no run
    of it can have left; it is as it was then."""
    begun = dict(part.state_dict())
    kinds = {tensor.dtype for tensor in begun.values()} | {torch.int64, dtype or torch.int64}
    _check_shapes(state, begun, {dim, *fragments}, workers, kinds)
    try:
        part.load_state_dict(state)
        if strange := part.state_dict().keys() ^ state.keys():
            raise ValueError(f"{min(strange)}: missing, or not known")
    except BaseException:
        part.load_state_dict(begun)
        raise


def _check_shapes(
    state: Mapping[str, Tensor],
    begun: Mapping[str, Tensor],
    dims: Collection[int],
    workers: int,
    kinds: Collection[torch.dtype],
) -> None:
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
            rows = workers if has_workers(name) else 1
            fits = tensor.dtype in kinds and tensor.numel() <= rows * max(dims)
            fits &= (shape[-1] if shape else 0) in dims or name.rpartition(".")[2] not in LIKE_X
            fits &= not has_workers(name) or shape[:1] == [workers]
        if not fits:
            raise ValueError(f"{name}: is {shape} of {tensor.dtype}")
        if not tensor.is_floating_point() and tensor.numel() and int(tensor.min()) < 0:
            raise ValueError(f"{name}: holds numbers below 0")
