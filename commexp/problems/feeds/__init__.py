"""Batches for a model: selected, decoded, moved to the device, augmented and normalised."""

from __future__ import annotations

from commexp.problems.base import ProblemContext
from commexp.problems.data import Data
from commexp.problems.datasets.photos import Photos
from commexp.problems.feeds.base import Feed, InMemory
from commexp.problems.feeds.own import Own
from commexp.problems.feeds.streamed import Streamed
from commexp.problems.feeds.windows import Windows
from commexp.problems.items import Items
from commexp.problems.tokens import Tokens

FEEDS: dict[type, type[Feed]] = {Photos: Streamed, Tokens: Windows, Items: Own}


def make_feed(data: Data, context: ProblemContext) -> Feed:
    """Streamed for Photos, Windows for Tokens, Own for Items, InMemory for tensors and SparseRows. Raises ValueError
    for full batches."""
    return FEEDS.get(type(data.train_x), InMemory)(data, context)


__all__ = ["Feed", "InMemory", "Own", "Streamed", "Windows", "make_feed"]
