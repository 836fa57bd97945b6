"""Random numbers that depend on nothing but (seed, purpose, worker, ...): never on the global generator.

A stream is named by what it is for, so the same seed gives the same curve however the workers are spread over
processes, whatever order they run in and whatever other component draws numbers.
"""

from __future__ import annotations

import hashlib

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
    """The same for NumPy, whose distributions (Dirichlet, ...) take a generator where torch's do not."""
    return np.random.default_rng(derive(seed, *key))
