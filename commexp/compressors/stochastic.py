"""Random draws of compressors: by (seed, worker, round), whatever process hosts the worker."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from commexp.compressors.base import Compressor
from commexp.seeding import derive


class Stochastic(Compressor):
    """A compressor that draws random numbers. Its state is the number of vectors it has encoded."""

    stochastic = True
    state = "encoded=_encoded"
    _encoded = 0

    def set_round(self, t: int) -> None:
        self._encoded = t

    def seeds(self, workers: int) -> list[int]:
        """A 63-bit seed for each of the W workers here, for this encoding alone."""
        ids = self._setup.worker_ids
        ids = range(workers) if ids is None else ids
        seeds = [derive(self._setup.seed, self._setup.purpose, worker, self._encoded) for worker in ids]
        self._encoded += 1
        return seeds

    def generators(self, a: Tensor) -> list[torch.Generator]:
        """A generator for each worker's row of ``a`` [W, J], on its device, for this encoding alone."""
        return [torch.Generator(a.device).manual_seed(seed) for seed in self.seeds(len(a))]

    def uniform(self, a: Tensor) -> Tensor:
        """Numbers in [0, 1), one for each entry of ``a`` [W, J]."""
        return next_uniform(self.generators(a), a)


def next_uniform(generators: Sequence[torch.Generator], a: Tensor) -> Tensor:
    """The next numbers in [0, 1) of each row's generator, one for each entry of ``a`` [W, m]: on a CPU the same for the
    pieces of a row, one after the other, as for all of it at once."""
    out = torch.empty_like(a, memory_format=torch.contiguous_format)
    for row, generator in zip(out, generators, strict=True):
        row.uniform_(generator=generator)
    return out
