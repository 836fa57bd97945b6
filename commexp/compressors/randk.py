"""Random-k: k entries drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np
import torch
from torch import Tensor

from commexp.compressors.base import CorruptMessageError, Message
from commexp.compressors.sparse import Sparse
from commexp.compressors.stochastic import Stochastic
from commexp.seeding import derive


@dataclass
class RandK(Sparse, Stochastic):
    """C(a) keeps k of J entries, drawn without replacement, every set equally likely.

    ``shared``: all workers draw the same set from the common seed, so no indices travel and the messages sum; else
    each draws its own and sends the indices.
    ``rescale``: entries are multiplied by J/k, which makes C unbiased with E||C(a)||^2 = (J/k) ||a||^2; else C is a
    contraction with delta = k/J in expectation.
    Source: Stich, Cordonnier and Jaggi, arXiv 1809.07599, definition 2.1; Wangni et al., arXiv 1710.09854.
    """

    k: Union[int, float] = 0.1  # noqa: UP007
    shared: bool = True
    rescale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sums = self.shared
        self.unbiased = self.rescale
        self.shared_state = self.shared
        self.contracting = "rescale=false" if self.rescale else ""

    def encode(self, a: Tensor) -> Message:
        dim = a.shape[1]
        k = self.entries(dim)
        if self.shared:
            self._encoded += 1
            values = a[:, self._common(self._encoded, k, dim, a.device)]
            bits = 8.0 * values.numel() * values.element_size()
            message = Message({"values": values}, dim, a.dtype, bits, self, header={"draw": self._encoded, "k": k})
        else:
            message = self.pack(a, draw(self.seeds(len(a)), k, dim).to(a.device))
        if self.rescale:
            message.buffers["values"].mul_(dim / k)
        return message

    def _common(self, number: int, k: int, dim: int, device: torch.device) -> Tensor:
        """The set of this encoding, which all workers know from the seed and the number of encodings."""
        seed = derive(self._setup.seed, self._setup.purpose, "shared", number)
        return draw([seed], k, dim)[0].to(device)

    def places(self, message: Message) -> Tensor:
        if not self.shared:
            return super().places(message)
        k, number = message.header.get("k", -1), message.header.get("draw", -1)
        values = message.buffer("values", message.dtype)
        if set(message.buffers) != {"values"} or values.shape[1] != k or k > message.dim or number < 0:
            raise CorruptMessageError(f"{list(values.shape)} values of draw {number}; must be {k} for each worker")
        common = self._common(number, k, message.dim, values.device)
        return common.expand(message.workers, -1)

    def subtract_sent(self, a: Tensor, message: Message) -> Tensor:
        return a.sub_(self.decode(message)) if self.rescale else super().subtract_sent(a, message)

    def payload(self, dim: int, itemsize: int) -> int:
        return self.entries(dim) * itemsize if self.shared else super().payload(dim, itemsize)

    def delta(self, dim: int) -> float | None:
        return None if self.rescale else self.entries(dim) / dim

    def omega(self, dim: int) -> float | None:
        """J/k - 1."""
        return dim / self.entries(dim) - 1 if self.rescale else None


def draw(seeds: Sequence[int], k: int, dim: int) -> Tensor:
    """For each seed k different places below J = ``dim``, ascending: [seeds, k]."""
    sets = [np.random.default_rng(seed).choice(dim, k, replace=False, shuffle=False) for seed in seeds]
    return torch.from_numpy(np.sort(np.stack(sets), axis=1))
