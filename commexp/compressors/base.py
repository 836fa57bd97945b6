"""What a compressor is, and the message it hands to the exchange."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Message:
    """What W workers hand to the exchange.

    ``buffers``: named tensors with a leading worker axis, [W, ...]: exactly the bytes that travel.
    ``dim``: J, the length of the vector they stand for. ``dtype``: the type it decodes to.
    ``info_bits``: what an ideal code would need for one worker's message.
    ``codec``: who can read it.
    """

    buffers: Mapping[str, Tensor]
    dim: int
    dtype: torch.dtype
    info_bits: float
    codec: Compressor

    @property
    def workers(self) -> int:
        return next(iter(self.buffers.values())).shape[0]

    @property
    def nbytes(self) -> int:
        """Payload of one worker in bytes."""
        return sum(b[0].numel() * b.element_size() for b in self.buffers.values())


class Compressor(ABC):
    """A map from vectors to messages and back, applied to W workers at once.

    A concrete compressor is a dataclass whose fields are its hyper-parameters; it checks them in ``__post_init__``
    and raises ``ValueError("field=value: what is wrong; what would be right")``.
    """

    #: messages may be added buffer by buffer, so an all-reduce serves; otherwise they are gathered
    sums: bool = False
    #: E[decode(encode(a))] = a
    unbiased: bool = False

    @abstractmethod
    def encode(self, a: Tensor) -> Message:
        """[W, J] -> the messages of W workers. Leaves ``a`` as it is."""

    @abstractmethod
    def decode(self, message: Message) -> Tensor:
        """Messages of W workers -> [W, J]."""

    @abstractmethod
    def payload(self, dim: int, itemsize: int) -> int:
        """Bytes of one worker's message for J = ``dim`` numbers of ``itemsize`` bytes, known before any is sent."""

    def delta(self, dim: int) -> float | None:
        """delta in the contraction ||a - C(a)||^2 <= (1 - delta) ||a||^2, or None where C does not contract."""
        return None

    def reduce(self, message: Message, weights: Tensor) -> Tensor:
        """sum_n w_n decode(message_n): [J], for weights [W]."""
        return weights @ self.decode(message)

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        """a - decode(message), [W, J], written over ``a``: what stays behind as residual."""
        return a.sub_(self.decode(message))

    def feedback(self, aggregate: Tensor, weights: Tensor | None = None) -> None:  # noqa: B027
        """Tells the compressor the round's aggregate [J] and the weights [W] of its workers (1/W if not given)."""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {sorted(state)}")


def log2_binomial(n: int, k: int) -> float:
    """log2 of the number of ways to choose k of n: the bits that a set of k indices is worth."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
