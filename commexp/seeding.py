"""Random numbers that depend only on (seed, purpose, worker, ...), never on the global generator.

Every stream of random numbers has a name that states its purpose. So the same seed gives the same curve for every split
of the workers over processes, every order of execution, and independently of other components that draw numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *key: str | int) -> int:
    """A 63-bit seed for the stream named ``key``; different names give independent streams."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *key: str | int) -> torch.Generator:
    """A CPU generator for the stream named ``key``."""
    return torch.Generator().manual_seed(derive(seed, *key))


def numpy_generator(seed: int, *key: str | int) -> np.random.Generator:
    """A NumPy generator for the stream, for distributions that torch cannot draw from a generator (Dirichlet, ...)."""
    return np.random.default_rng(derive(seed, *key))


@contextmanager
def global_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, what draws from torch's global generators (dropout, a layer's initial values) draws the stream of
    ``seed``; afterwards the generators are as they were."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also seeds all GPUs
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
