"""Compressors around another one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from commexp.compressors.base import Compressor, Message

#: written in terms of the other methods, and so the wrapper's own
OWN = {"reduce", "total", "summed"}


class Wrapper(Compressor):
    """Has every flag and method of Compressor from ``codec``, but for those that a subclass or an instance overrides:
    a flag that Compressor gains is forwarded without a word here or in a wrapper. State is declared by the subclass."""

    def __init__(self, codec: Compressor) -> None:
        self.codec = codec

    def encode(self, a: Tensor) -> Message:
        return self.codec.encode(a)

    def decode(self, message: Message) -> Tensor:
        return self.codec.decode(message)

    def payload(self, dim: int, itemsize: int) -> int:
        return self.codec.payload(dim, itemsize)


class Forwarded:
    """An attribute, property or method of this name: the wrapped codec's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, wrapper: Wrapper | None, owner: type[Wrapper]) -> Any:
        return self if wrapper is None else getattr(wrapper.codec, self.name)


for _name in vars(Compressor).keys() - vars(Wrapper).keys() - OWN:
    if not _name.startswith("_"):
        setattr(Wrapper, _name, Forwarded(_name))


class Combination(Wrapper):
    """A wrapper whose messages are made of messages of other codecs, so that whatever reads a message is its own.
    They are neither cut nor encoded ahead."""

    entrywise = False
    splittable = False
    cut, cut_sizes, aggregate_payload = Compressor.cut, Compressor.cut_sizes, Compressor.aggregate_payload
    summands, summand_count, add_up = Compressor.summands, Compressor.summand_count, Compressor.add_up
    next_phase, finalize = Compressor.next_phase, Compressor.finalize
    subtract_sent, clear_sent = Compressor.subtract_sent, Compressor.clear_sent
