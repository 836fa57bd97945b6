"""How often Hydra composes the config of a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra._internal.hydra import Hydra


@contextmanager
def composing_once(words: Sequence[str]) -> Iterator[None]:
    """Hydra composes the config a first time to see whether ``hydra.mode`` asks for a sweep. Nothing in our conf/ does,
    so that takes a word that names Hydra's keys, or a folder or file of the user's own; otherwise -m decides."""
    asks = Hydra.get_mode
    if not any("hydra." in word or word.startswith(("-c", "--config")) for word in words):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = asks  # type: ignore[method-assign]
