"""Batches for a model: selected, decoded, moved to the device, augmented and normalised."""

from __future__ import annotations

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.datasets.photos import Photos
from commexp.problems.feeds.base import Chunk, Feed, InMemory
from commexp.problems.feeds.streamed import Streamed


def make_feed(data: Data, context: ProblemContext) -> Feed:
    """InMemory for tensors and SparseRows, Streamed for Photos. Raises ValueError for full batches."""
    return Streamed(data, context) if isinstance(data.train_x, Photos) else InMemory(data, context)


__all__ = ["Chunk", "Feed", "InMemory", "Streamed", "make_feed"]
