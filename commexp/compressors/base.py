"""The interface of a compressor, the message that it hands to the exchange, and compressors around another one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from commexp.state import Stateful

MANY = 2**20  # entries of a vector for which a codec must contract, to be said to


class CorruptMessageError(ValueError):
    """No encoder makes this message: a buffer is missing, too short, of the wrong type or out of range."""


@dataclass(frozen=True)
class Message:
    """The messages of W workers to the exchange.

    ``buffers``: named tensors with a leading worker axis, [W, ...]: exactly the bytes that travel.
    ``dim``: J, the length of the vector they encode. ``dtype``: the type it decodes to.
    ``info_bits``: what an ideal code would need for all W messages. ``codec``: which decodes them.
    ``lengths``: for buffers [W, longest] whose rows differ in length, how many elements of each row travel.
    ``last``: False where another message follows once the sum of these is known (``next_phase``).
    ``header``: small integers that decoding needs and that every worker in the same round knows: k in warm-up, the
    number of the random draw.
    """

    buffers: Mapping[str, Tensor]
    dim: int
    dtype: torch.dtype
    info_bits: float
    codec: Compressor
    lengths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    last: bool = True
    header: Mapping[str, int] = field(default_factory=dict)

    @property
    def workers(self) -> int:
        for buffer in self.buffers.values():
            return buffer.shape[0] if buffer.ndim else 0
        raise CorruptMessageError("has no buffers")

    @property
    def sizes(self) -> list[int]:
        """Payload of each worker in bytes, [W]."""
        whole = sum(b.shape[1:].numel() * b.element_size() for n, b in self.buffers.items() if n not in self.lengths)
        ragged = [(self.buffers[name].element_size(), lengths) for name, lengths in self.lengths.items()]
        if not ragged:
            return [whole] * self.workers
        return [whole + sum(size * lengths[w] for size, lengths in ragged) for w in range(self.workers)]

    @property
    def nbytes(self) -> int:
        """Payload of all W workers in bytes."""
        return sum(self.sizes)

    def buffer(self, name: str, dtype: torch.dtype, columns: int | None = None) -> Tensor:
        """The buffer [W, columns] of this name and type. Raises CorruptMessageError if there is none like it."""
        buffer = self.buffers.get(name)
        if self.dim < 0 or not self.dtype.is_floating_point:
            raise CorruptMessageError(f"stands for {self.dim} numbers of {self.dtype}")
        if buffer is None:
            raise CorruptMessageError(f"{name}: missing")
        if buffer.dtype != dtype or buffer.ndim != 2 or columns not in (None, buffer.shape[1]):
            wanted = f"[{self.workers}, {'any' if columns is None else columns}] of {dtype}"
            raise CorruptMessageError(f"{name}: is {list(buffer.shape)} of {buffer.dtype}; must be {wanted}")
        if buffer.shape[0] != self.workers or not self.workers:
            raise CorruptMessageError(f"{name}: for {buffer.shape[0]} workers; must be for {self.workers}")
        return buffer

    def row(self, name: str, worker: int) -> Tensor:
        """The part of worker ``worker``'s row that travels, of a buffer whose rows differ in length: [length]."""
        rows, lengths = self.buffers[name], self.lengths[name]
        if len(lengths) != len(rows) or not 0 <= lengths[worker] <= rows.shape[1]:
            raise CorruptMessageError(f"{name}: the lengths {list(lengths)} do not fit {list(rows.shape)}")
        return rows[worker, : lengths[worker]]


@dataclass(frozen=True)
class CodecContext:
    """What a compressor knows of its run. ``seed``: of its random draws. ``worker_ids``: global ids of the W workers
    in this process. ``shapes``: of the tensors that make up the flat vector, in order; empty where it is one vector.
    ``purpose``: distinguishes the draws of several compressors in one run."""

    seed: int = 0
    worker_ids: Sequence[int] | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    purpose: str = "compressor"


class Compressor(Stateful, ABC):
    """A map from vectors to messages and back, applied to W workers at once.

    A concrete compressor is a dataclass whose fields are its hyper-parameters; it checks them in ``__post_init__``
    and raises ``ValueError("field=value: what is wrong; what would be right")``. It implements ``encode``, ``decode``
    and ``payload``, sets those of the flags below that hold, and names what it keeps from round to round in ``state``
    and ``worker_state`` (see Stateful). All else has a default, or is derived from what it implements.
    """

    #: messages may be added buffer by buffer, so an all-reduce serves; otherwise they are gathered
    sums: bool = False
    #: E[decode(encode(a))] = a
    unbiased: bool = False
    #: the message's size depends on the data; ``payload`` is then the most it can be
    variable_size: bool = False
    #: draws random numbers: set by Stochastic
    stochastic: bool = False
    #: decoding needs what every worker knows besides the message: the common seed, the last aggregate
    shared_state: bool = False
    #: each entry is encoded by itself, so that any bucket of the vector may go ahead of the rest
    entrywise: bool = False
    #: the aggregate is sum_n w_n decode(message_n), so that what a worker has sent is known from its message
    linear: bool = True
    #: of one that does not contract, the setting with which it would, as ``field=value``
    contracting: str = ""

    _setup = CodecContext()

    @property
    def phases(self) -> int:
        """Exchanges that one encoding takes: two where ``next_phase`` is implemented."""
        return 2 if self._implements("next_phase") else 1

    @property
    def sparse(self) -> bool:
        """Whether it sends some of the entries: ``clear_sent`` is implemented."""
        return self._implements("clear_sent")

    @property
    def splittable(self) -> bool:
        """Whether its messages can be divided into shards of the vector: ``cut`` is implemented."""
        return self._implements("cut")

    @property
    def requantises(self) -> bool:
        """Whether it can encode a shard of the sum of its messages: ``requantise`` is implemented."""
        return self._implements("requantise")

    @property
    def grain(self) -> int:
        """Messages can be cut at multiples of so many entries, which is a multiple of 8."""
        return 8

    @property
    def learns(self) -> bool:
        """Whether ``feedback`` is implemented, so that the codec needs algorithms that call it."""
        return self._implements("feedback")

    @property
    def stateful_per_worker(self) -> bool:
        """Whether it keeps something of each worker from round to round: ``worker_state`` is declared."""
        return bool(self.worker_state)

    @property
    def expands(self) -> bool:
        """Whether C(a) may be further from a than 0 is, E||a - C(a)||^2 > ||a||^2: it is unbiased and does not
        contract."""
        return self.unbiased and self.delta(MANY) is None

    @property
    def name(self) -> str:
        """Of the codec inside all wrappers."""
        return type(self).__name__

    def _implements(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(Compressor, method)

    def setup(self, setup: CodecContext) -> None:
        """Called once, before the first round. Without it: seed 0, workers 0..W-1, one flat vector."""
        self._setup = setup

    def set_round(self, t: int) -> None:
        """The next encoding is that of round t, whichever was the last: its random draws are that round's."""

    @abstractmethod
    def encode(self, a: Tensor) -> Message:
        """[W, J] -> the messages of W workers. Leaves ``a`` as it is."""

    @abstractmethod
    def decode(self, message: Message) -> Tensor:
        """Messages of W workers -> [W, J]. Raises CorruptMessageError for a message that ``encode`` cannot make."""

    @abstractmethod
    def payload(self, dim: int, itemsize: int) -> int:
        """Bytes of one worker's message for J = ``dim`` numbers of ``itemsize`` bytes, known before any is sent."""

    def messages(self, dim: int, itemsize: int) -> list[int]:
        """The same for each of several messages that follow one another."""
        return [self.payload(dim, itemsize)]

    def delta(self, dim: int) -> float | None:
        """delta in the contraction E||a - C(a)||^2 <= (1 - delta) ||a||^2, or None where C does not contract."""
        return None

    def omega(self, dim: int) -> float | None:
        """omega in the variance E||C(a) - a||^2 <= omega ||a||^2 of an unbiased C; None where C is biased."""
        return None

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:
        """Tells the compressor the round's aggregate [J] and the weights [W] of its workers (1/W if not given)."""

    def next_phase(self, message: Message, total: Tensor) -> Message | None:
        """The message that follows when the sum ``total`` over all workers is known; None after the last."""
        return None

    def finalize(self, message: Message, total: Tensor) -> Tensor:
        """From the sum over all workers [M] to the aggregate [J]."""
        return total

    def summands(self, message: Message) -> Tensor:
        """What is added up over the workers, [W, M]: the decoded vectors unless a codec says otherwise."""
        return self.decode(message)

    def summand_count(self, message: Message) -> int:
        """M, the columns of ``summands``."""
        return message.dim

    def add_up(self, message: Message, weights: Tensor) -> Tensor:
        """``total`` of messages that do not sum, in whatever order is fastest."""
        return weights @ self.summands(message)

    def aggregate_payload(self, dim: int, itemsize: int, workers: int) -> int:
        """The most bytes that the aggregate of so many workers can take: dense unless a codec knows better."""
        return dim * itemsize

    def cut(self, message: Message, bounds: Sequence[int]) -> list[Message]:
        """The messages of the shards [bounds_j, bounds_j+1) of the vector; bounds are multiples of
        ``grain``, but for the last."""
        raise NotImplementedError(f"messages of {self.name} cannot be cut")

    def requantise(self, total: Tensor, messages: Message, start: int) -> Message:
        """The message [1, ...] for a shard of the sum of ``messages``: ``total`` [m], from entry ``start`` on, where a
        cut may lie. It depends on nothing but these and the setup: it is no encoding of this worker's own."""
        raise NotImplementedError(f"sums of messages of {self.name} cannot be encoded")

    def cut_sizes(self, message: Message, bounds: Sequence[int]) -> list[list[int]]:
        """Payload of each worker's message for each shard, [W][shards]; an empty shard has no message."""
        sizes = [m.sizes if m.dim else [0] * message.workers for m in self.cut(message, bounds)]
        return [list(row) for row in zip(*sizes, strict=True)]

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        """a - decode(message), [W, J], written over ``a``: what stays behind as residual."""
        return a.sub_(self.decode(message))

    def clear_sent(self, x: Tensor, message: Message) -> Tensor:
        """Zero at the entries that ``message`` holds, written over ``x`` [W, J]: everywhere unless it is sparse."""
        return x.zero_()

    def warm_up(self, exponent: float) -> None:
        """Sends the share (k/J)^exponent from now on, 0 < exponent <= 1. Raises ValueError for a codec without k."""
        raise ValueError(f"warmup: {self.name} has no k to shrink; give 0, or choose a sparse codec")

    def reduce(self, message: Message, weights: Tensor) -> Tensor:
        """The aggregate [J] of these messages for weights [W]: what an exchange among just these workers gives."""
        while True:
            total = self.total(message, weights)
            following = self.next_phase(message, total)
            if following is None:
                return self.finalize(message, total)
            message = following

    def total(self, message: Message, weights: Tensor, in_order: bool = False) -> Tensor:
        """sum_n w_n summands(message)_n: [M], for weights [W]; ``in_order``: added worker by worker.

        Messages that sum are summed as they travel, so the total has the precision of a message.
        """
        if self.sums:
            return self.summands(self.summed(message, weights, in_order))[0]
        return weighted_sum(self.summands(message), weights, True) if in_order else self.add_up(message, weights)

    def summed(self, message: Message, weights: Tensor, in_order: bool = False) -> Message:
        """The one message [1, ...] that stands for all W, of a codec whose messages sum."""
        sums = {
            name: narrowed(weighted_sum(b.to(message.dtype), weights, in_order), b.dtype)[None]
            for name, b in message.buffers.items()
        }
        return replace(message, buffers=sums)


def weighted_sum(x: Tensor, weights: Tensor, in_order: bool = False) -> Tensor:
    """sum_n w_n x_n over the leading axis; ``in_order``: one row after the other, whatever the machine."""
    if x.shape[0] == 1:
        return x[0] * weights[0]
    if not in_order:
        return (weights @ x.flatten(1)).view(x.shape[1:])
    total = torch.zeros_like(x[0])
    for w, row in zip(weights, x, strict=True):
        total += w * row
    return total


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in ``dtype``; what is beyond its range becomes its largest number."""
    if x.dtype == dtype:
        return x
    limit = torch.finfo(dtype).max
    return x.clamp(-limit, limit).to(dtype)


@cache
def log2_binomial(n: int, k: int) -> float:
    """log2 of the number of ways to choose k of n: the bits that a set of k indices is worth."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


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
    requantises = False
    requantise = Compressor.requantise
    cut, cut_sizes, aggregate_payload = Compressor.cut, Compressor.cut_sizes, Compressor.aggregate_payload
    summands, summand_count, add_up = Compressor.summands, Compressor.summand_count, Compressor.add_up
    next_phase, finalize, messages = Compressor.next_phase, Compressor.finalize, Compressor.messages
    subtract_sent, clear_sent = Compressor.subtract_sent, Compressor.clear_sent
