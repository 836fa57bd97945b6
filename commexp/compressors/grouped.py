"""A codec for each group of columns of the flat vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from commexp.compressors.base import Combination, Compressor, CorruptMessageError, Message
from commexp.compressors.columns import Columns
from commexp.compressors.none import NoCompression
from commexp.state import with_prefix

T = TypeVar("T")


@dataclass
class Group(Columns):
    """Some columns of the flat vector and the codec that encodes them as one vector of length ``dim``."""

    codec: Compressor

    def change(self, a: Tensor, change: Callable[[Tensor], Tensor]) -> None:
        """Replaces the group's columns of ``a`` by what ``change`` writes over them."""
        columns = self.take(a)
        changed = change(columns)
        if len(self.places) > 1:
            self.put(changed, a)

    def encode(self, a: Tensor) -> Message:
        columns = self.take(a)
        return self.codec.encode(columns.clone() if isinstance(self.codec, NoCompression) else columns)


class Grouped(Combination):
    """C(a) = (C_1(a_1), ..., C_L(a_L)) over ``groups`` of the vector's columns, each with a codec of its own, in one
    message: buffer ``name`` of group i is ``i.name``. ``codec``: whose flags hold for all of them; without groups it
    encodes the whole vector. A group whose codec has sent its last message takes no part in the phases that follow.
    Contracts with the smallest delta of its groups.
    """

    state = "**codecs"

    def __init__(self, codec: Compressor, groups: Sequence[Group] = ()) -> None:
        super().__init__(codec)
        self._groups = list(groups)
        self._latest: tuple[Message, Mapping[int, Message]] | None = None
        self._finished: dict[int, Tensor] = {}  # aggregates of groups without a message in this phase

    @property
    def codecs(self) -> dict[str, Compressor]:
        return {str(i): g.codec for i, g in enumerate(self._groups)}

    def _over(self, dim: int) -> list[Group]:
        """The groups of a vector of length ``dim``."""
        if not self._groups:
            self._groups = [Group([slice(0, dim)], self.codec)]
        return self._groups

    def set_round(self, t: int) -> None:
        for codec in (self.codec, *self.codecs.values()):
            codec.set_round(t)

    def encode(self, a: Tensor) -> Message:
        self._finished = {}
        groups = self._over(a.shape[1])
        return self._joined({i: g.encode(a) for i, g in enumerate(groups)}, a.shape[1], a.dtype)

    def _joined(self, messages: Mapping[int, Message], dim: int, dtype: torch.dtype) -> Message:
        """One message of those of the groups."""
        buffers: dict[str, Tensor] = {}
        lengths: dict[str, Sequence[int]] = {}
        header: dict[str, int] = {}
        for i, m in messages.items():
            buffers |= with_prefix(str(i), m.buffers)
            header |= with_prefix(str(i), m.header)
            lengths |= with_prefix(str(i), m.lengths)
        bits, last = sum(m.info_bits for m in messages.values()), all(m.last for m in messages.values())
        message = Message(buffers, dim, dtype, bits, self, lengths, last, header)
        self._latest = message, messages
        return message

    def _each(self, message: Message) -> list[tuple[int, Group, Message]]:
        """The groups that take part in ``message``, by number, and their messages. Raises CorruptMessageError."""
        groups = self._over(message.dim)
        if sum(g.dim for g in groups) != message.dim:
            raise CorruptMessageError(f"is for {message.dim} numbers; must be for {sum(g.dim for g in groups)}")
        latest, own = self._latest or (None, {})
        if latest is not None and _same(latest, message):
            return [(i, groups[i], m) for i, m in own.items()]
        present = list(own or range(len(groups)))
        buffers = _by_group(message.buffers)
        if buffers.keys() != set(map(str, present)):
            raise CorruptMessageError(f"has no message for each of {len(present)} tensors")
        if any(b.ndim != 2 or len(b) != message.workers for b in message.buffers.values()):
            raise CorruptMessageError("the tensors' messages are of different workers")
        lengths, headers, each = _by_group(message.lengths), _by_group(message.header), []
        for i in present:
            g, key, last = groups[i], str(i), own[i].last if own else message.last
            more = lengths.get(key, {}), last, headers.get(key, {})
            each.append((i, g, Message(buffers[key], g.dim, message.dtype, 0.0, g.codec, *more)))
        return each

    def decode(self, message: Message) -> Tensor:
        decoded = [(g, g.codec.decode(m)) for _, g, m in self._each(message)]
        out = torch.empty(message.workers, message.dim, dtype=message.dtype, device=decoded[0][1].device)
        for g, values in decoded:
            g.put(values, out)
        return out

    def summands(self, message: Message) -> Tensor:
        return torch.cat([g.codec.summands(m) for _, g, m in self._each(message)], dim=1)

    def summand_count(self, message: Message) -> int:
        return sum(g.codec.summand_count(m) for _, g, m in self._each(message))

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        return torch.cat([g.codec.add_up(m, weights) for _, g, m in self._each(message)])

    def _totals(self, message: Message, total: Tensor) -> list[tuple[int, Group, Message, Tensor]]:
        """The same with each group's part of the sum."""
        each = self._each(message)
        totals = torch.split(total, [g.codec.summand_count(m) for _, g, m in each])
        return [(*one, own) for one, own in zip(each, totals, strict=True)]

    def next_phase(self, message: Message, total: Tensor) -> Message | None:
        if self.phases == 1:
            return None
        parts = self._totals(message, total)
        following = {i: m for i, g, own, t in parts if (m := g.codec.next_phase(own, t)) is not None}
        if not following:
            return None
        self._finished |= {i: g.codec.finalize(m, t) for i, g, m, t in parts if i not in following}
        return self._joined(following, message.dim, message.dtype)

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        out = total.new_empty(message.dim)
        for _, g, m, own in self._totals(message, total):
            g.put(g.codec.finalize(m, own), out)
        for i, aggregate in self._finished.items():
            self._groups[i].put(aggregate, out)
        return out

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        for _, g, m in self._each(message):
            g.change(a, lambda x, g=g, m=m: g.codec.subtract_sent(x, m))  # type: ignore[misc]
        return a

    def clear_sent(self, x: Tensor, message: Message) -> Tensor:
        for _, g, m in self._each(message):
            g.change(x, lambda y, g=g, m=m: g.codec.clear_sent(y, m))  # type: ignore[misc]
        return x

    def payload(self, dim: int, itemsize: int) -> int:
        return sum(g.codec.payload(g.dim, itemsize) for g in self._over(dim))

    def delta(self, dim: int) -> float | None:
        deltas = [g.codec.delta(g.dim) for g in self._over(dim)]
        return None if None in deltas else min(d for d in deltas if d is not None)

    def omega(self, dim: int) -> float | None:
        """The largest of its groups."""
        omegas = [g.codec.omega(g.dim) for g in self._over(dim)]
        return None if None in omegas else max(o for o in omegas if o is not None)

    def warm_up(self, exponent: float) -> None:
        for codec in (self.codec, *(c for c in self.codecs.values() if not isinstance(c, NoCompression))):
            codec.warm_up(exponent)

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        for g in self._groups:
            g.codec.feedback(g.take(aggregate), weights)


def _by_group(entries: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Entries ``i.name`` by i."""
    groups: dict[str, dict[str, T]] = {}
    for name, value in entries.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = value
    return groups


def _same(one: Message, other: Message) -> bool:
    """Whether it is that very message, whoever is said to read it."""
    return one.buffers is other.buffers and one.lengths is other.lengths and one.dtype == other.dtype
