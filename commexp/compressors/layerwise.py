"""A compressor for each tensor of the model, and small tensors whole."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from commexp.compressors.base import CodecContext, Compressor, CorruptMessageError, Message
from commexp.compressors.none import NoCompression
from commexp.state import under_prefix, with_prefix

SCOPES = ("model", "layer")


@dataclass
class Part:
    """Some columns of the flat vector and the compressor they share."""

    codec: Compressor
    columns: list[slice]

    @property
    def dim(self) -> int:
        return sum(c.stop - c.start for c in self.columns)

    def take(self, a: Tensor) -> Tensor:
        """The part's columns of [..., J]; a view where they lie together."""
        pieces = [a[..., c] for c in self.columns]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)

    def own(self, a: Tensor) -> Tensor:
        """``take`` where the codec reads, a copy where its message keeps what it is given."""
        return self.take(a).clone() if isinstance(self.codec, NoCompression) else self.take(a)

    def put(self, values: Tensor, out: Tensor) -> None:
        start = 0
        for c in self.columns:
            out[..., c] = values[..., start : start + c.stop - c.start]
            start += c.stop - c.start


class Layerwise(Compressor):
    """C(a) = (C_1(a_1), ..., C_L(a_L)) over the tensors of the model, each with its own copy of ``codec``.

    ``scope``: layer, or model (one codec for all that is not sent whole). ``whole_below``: tensors of fewer entries,
    such as biases and norms, travel uncompressed. Contracts with the smallest delta of its parts.
    Raises ValueError for another scope, a negative whole_below, or a codec that needs more than one exchange.
    """

    def __init__(self, codec: Compressor, scope: str = "layer", whole_below: int = 0) -> None:
        if scope not in SCOPES:
            raise ValueError(f"scope={scope}: unknown; give {' or '.join(SCOPES)}")
        if whole_below < 0:
            raise ValueError(f"whole_below={whole_below}: must not be negative; give a number of entries")
        if codec.phases > 1:
            raise ValueError(f"scope={scope}: {codec.name} goes by matrices itself; give model, and whole_below=0")
        self.codec, self.scope, self.whole_below = codec, scope, whole_below
        self.sums, self.unbiased, self.variable_size = codec.sums, codec.unbiased, codec.variable_size
        self.stochastic, self.sparse, self.shared_state = codec.stochastic, codec.sparse, codec.shared_state
        self.stateful_per_worker, self.contracting = codec.stateful_per_worker, codec.contracting
        self._parts: list[Part] = []
        self._latest: tuple[Message, list[Message]] | None = None

    def setup(self, setup: CodecContext) -> None:
        self._parts, whole, rest, start = [], [], [], 0
        for name, shape in setup.shapes.items():
            columns = slice(start, start + math.prod(shape))
            start = columns.stop
            if columns.stop - columns.start < self.whole_below:
                whole.append(columns)
            elif self.scope == "model":
                rest.append(columns)
            else:
                inner = copy.deepcopy(self.codec)
                inner.setup(replace(setup, shapes={name: shape}, purpose=f"{setup.purpose}.{name}"))
                self._parts.append(Part(inner, [columns]))
        if rest:
            self.codec.setup(replace(setup, shapes={}))
            self._parts.append(Part(self.codec, rest))
        if whole:
            self._parts.append(Part(NoCompression(), whole))

    def _over(self, dim: int) -> list[Part]:
        """The parts of a vector of length ``dim``; one where no shapes were given."""
        if not self._parts:
            self._parts = [Part(self.codec, [slice(0, dim)])]
        return self._parts

    def set_round(self, t: int) -> None:
        for codec in (self.codec, *(p.codec for p in self._parts)):
            codec.set_round(t)

    def encode(self, a: Tensor) -> Message:
        inner = [p.codec.encode(p.own(a)) for p in self._over(a.shape[1])]
        buffers: dict[str, Tensor] = {}
        lengths: dict[str, Sequence[int]] = {}
        header: dict[str, int] = {}
        for i, m in enumerate(inner):
            buffers |= with_prefix(str(i), m.buffers)
            header |= with_prefix(str(i), m.header)
            lengths |= with_prefix(str(i), m.lengths)
        bits = sum(m.info_bits for m in inner)
        message = Message(buffers, a.shape[1], a.dtype, bits, self, lengths, header=header)
        self._latest = message, inner
        return message

    def _each(self, message: Message) -> list[tuple[Part, Message]]:
        parts = self._over(message.dim)
        if sum(p.dim for p in parts) != message.dim:
            raise CorruptMessageError(f"is for {message.dim} numbers; must be for {sum(p.dim for p in parts)}")
        if self._latest is not None and _same(self._latest[0], message):
            return list(zip(parts, self._latest[1], strict=True))
        if {name.split(".")[0] for name in message.buffers} != {str(i) for i in range(len(parts))}:
            raise CorruptMessageError(f"has no message for each of {len(parts)} tensors")
        if any(b.ndim != 2 or len(b) != message.workers for b in message.buffers.values()):
            raise CorruptMessageError("the tensors' messages are of different workers")
        pairs = []
        for i, p in enumerate(parts):
            own, lengths = under_prefix(str(i), message.buffers), under_prefix(str(i), message.lengths)
            header = under_prefix(str(i), message.header)
            pairs.append((p, Message(own, p.dim, message.dtype, 0.0, p.codec, lengths, header=header)))
        return pairs

    def decode(self, message: Message) -> Tensor:
        decoded = [(p, p.codec.decode(m)) for p, m in self._each(message)]
        out = torch.empty(message.workers, message.dim, dtype=message.dtype, device=decoded[0][1].device)
        for p, values in decoded:
            p.put(values, out)
        return out

    def summands(self, message: Message) -> Tensor:
        return torch.cat([p.codec.summands(m) for p, m in self._each(message)], dim=1)

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        return torch.cat([p.codec.add_up(m, weights) for p, m in self._each(message)])

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        out, start = total.new_empty(message.dim), 0
        for p, m in self._each(message):
            width = p.codec.summand_count(p.dim)
            p.put(p.codec.finalize(m, total[start : start + width]), out)
            start += width
        return out

    def summand_count(self, dim: int) -> int:
        return sum(p.codec.summand_count(p.dim) for p in self._over(dim))

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        for p, m in self._each(message):
            p.put(p.codec.subtract_sent(p.take(a), m), a)
        return a

    def clear_sent(self, x: Tensor, message: Message) -> Tensor:
        for p, m in self._each(message):
            p.put(p.codec.clear_sent(p.take(x), m), x)
        return x

    def payload(self, dim: int, itemsize: int) -> int:
        return sum(p.codec.payload(p.dim, itemsize) for p in self._over(dim))

    def delta(self, dim: int) -> float | None:
        deltas = [p.codec.delta(p.dim) for p in self._over(dim)]
        return None if None in deltas else min(d for d in deltas if d is not None)

    @property
    def expands(self) -> bool:
        return self.codec.expands

    @property
    def learns(self) -> bool:
        return self.codec.learns

    def warm_up(self, exponent: float) -> None:
        for codec in (self.codec, *(p.codec for p in self._parts if not isinstance(p.codec, NoCompression))):
            codec.warm_up(exponent)

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        for p in self._parts:
            p.codec.feedback(p.take(aggregate), weights)

    @property
    def name(self) -> str:
        return self.codec.name

    def state_dict(self) -> dict[str, Tensor]:
        return {k: v for i, p in enumerate(self._parts) for k, v in with_prefix(str(i), p.codec.state_dict()).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for i, p in enumerate(self._parts):
            p.codec.load_state_dict(under_prefix(str(i), state))


def _same(one: Message, other: Message) -> bool:
    """Whether it is that very message, whoever is said to read it."""
    return one.buffers is other.buffers and one.lengths is other.lengths and one.dtype == other.dtype
