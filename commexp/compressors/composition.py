"""Sparse messages whose values another compressor encodes."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from commexp.compressors.base import CodecContext, Combination, Compressor, CorruptMessageError, Message
from commexp.compressors.sparse import Sparse
from commexp.state import under_prefix, with_prefix


class Composition(Combination):
    """C = D o S: the sparsifier S = ``entries`` picks k entries, D = ``values`` encodes their values as a vector of
    length k. Top-k and then QSGD is the composition of Basu et al., Qsparse-local-SGD, arXiv 1906.02367. What S leaves
    out is orthogonal to what D changes, so that if S keeps values as they are, delta is that of S for J times that of D
    for k.

    Raises ValueError if ``entries`` does not pick k entries, or ``values`` needs more than one exchange or learns from
    aggregates, which it is never given.
    """

    state = "entries values"

    def __init__(self, entries: Compressor, values: Compressor) -> None:
        if not isinstance(entries, Sparse):
            raise ValueError(f"entries={entries.name}: does not pick k entries; give TopK, RegTopK or RandK")
        if values.phases > 1:
            raise ValueError(f"values={values.name}: needs two exchanges; give a codec of one, such as QSGD")
        if values.learns:
            raise ValueError(
                f"values={values.name}: learns from aggregates of whole vectors; give another, such as QSGD"
            )
        super().__init__(entries)
        self.entries, self.values = entries, values
        self.contracting = next(
            (f"{n}.{c.contracting}" for n, c in (("entries", entries), ("values", values)) if c.contracting), ""
        )
        self.sums = entries.sums and values.sums
        self.unbiased = entries.unbiased and values.unbiased
        self.stochastic = entries.stochastic or values.stochastic
        self.variable_size = values.variable_size

    def setup(self, setup: CodecContext) -> None:
        self.entries.setup(setup)
        self.values.setup(replace(setup, shapes={}, purpose=f"{setup.purpose}.values"))

    def set_round(self, t: int) -> None:
        self.entries.set_round(t)
        self.values.set_round(t)

    def encode(self, a: Tensor) -> Message:
        picked = self.entries.encode(a)
        plain = picked.buffers["values"]
        coded = self.values.encode(plain)
        self.entries.were_sent(self.values.decode(coded))
        buffers = {**picked.buffers, **with_prefix("values", coded.buffers)}
        del buffers["values"]
        lengths = with_prefix("values", coded.lengths)
        header = {**picked.header, "k": plain.shape[1], **with_prefix("values", coded.header)}
        bits = picked.info_bits - 8.0 * plain.numel() * plain.element_size() + coded.info_bits
        return Message(buffers, a.shape[1], a.dtype, bits, self, lengths, header=header)

    def _picked(self, message: Message) -> Message:
        """The sparse message with its values decoded."""
        k = message.header.get("k", -1)
        if not 0 <= k <= message.dim:
            raise CorruptMessageError(f"k: {k} entries of {message.dim}")
        own, lengths = under_prefix("values", message.buffers), under_prefix("values", message.lengths)
        header = under_prefix("values", message.header)
        coded = Message(own, k, message.dtype, 0.0, self.values, lengths, header=header)
        kept = {name: b for name, b in message.buffers.items() if not name.startswith("values.")}
        kept["values"] = self.values.decode(coded)
        return replace(message, buffers=kept, codec=self.entries, lengths={})

    def decode(self, message: Message) -> Tensor:
        return self.entries.decode(self._picked(message))

    def summands(self, message: Message) -> Tensor:
        return self.entries.summands(self._picked(message))

    def summand_count(self, message: Message) -> int:
        return self.entries.summand_count(message)

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        return self.entries.add_up(self._picked(message), weights)

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        return self.entries.finalize(message, total)

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        picked = self._picked(message)
        return a.scatter_add_(1, self.entries.places(picked), -picked.buffers["values"])

    def clear_sent(self, x: Tensor, message: Message) -> Tensor:
        return self.entries.clear_sent(x, self._picked(message))

    def payload(self, dim: int, itemsize: int) -> int:
        k = self.entries.entries(dim)
        return self.entries.payload(dim, itemsize) - k * itemsize + self.values.payload(k, itemsize)

    def delta(self, dim: int) -> float | None:
        entries, values = self.entries.delta(dim), self.values.delta(self.entries.entries(dim))
        return None if entries is None or values is None else entries * values

    def omega(self, dim: int) -> float | None:
        """(1 + omega of S) (1 + omega of D) - 1, as E||D S a||^2 <= (1 + omega of D) E||S a||^2."""
        entries, values = self.entries.omega(dim), self.values.omega(self.entries.entries(dim))
        return None if entries is None or values is None else (1 + entries) * (1 + values) - 1

    @property
    def expands(self) -> bool:
        return self.entries.expands or self.values.expands

    @property
    def name(self) -> str:
        return f"{self.entries.name} and {self.values.name}"
