"""Allocations from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from commexp.allocations.base import Allocation

RIGHT = "N rows of M zeros and ones"


@dataclass
class AllocationFile(Allocation):
    """N rows of M zeros and ones with blanks or commas between, a one where worker n holds subset k; # starts a
    comment. ``path``: the file. ``digest``: 16 hex of BLAKE2b of its bytes, filled in, so that a changed file is
    another experiment and a moved one is not. ``subsets``: null for as many as the file has. Raises ValueError if the
    file cannot be read, or is not the one of ``digest``.
    """

    path: str = field(metadata={"location": True})
    digest: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._content()

    def assign(self, workers: int, seed: int) -> np.ndarray:
        rows: list[list[str]] = []
        for number, words in self._lines():
            if not set(words) <= {"0", "1"}:
                raise self._bad(f"line {number} is {' '.join(words)[:40]!r}", RIGHT)
            if rows and len(words) != len(rows[0]):
                raise self._bad(f"line {number} has {len(words)} numbers, those before it {len(rows[0])}", RIGHT)
            rows.append(words)
        if not rows:
            raise self._bad("empty", RIGHT)
        held = np.array([[word == "1" for word in words] for words in rows])
        N, M = held.shape
        if workers != N:
            raise ValueError(f"workers={workers}: the allocation in {self.path} has {N}; give workers={N}")
        if self.subsets not in (None, M):
            raise ValueError(f"subsets={self.subsets}: the allocation in {self.path} has {M}; give {M}, or null")
        lost = np.flatnonzero(~held.any(axis=0))
        if len(lost):
            raise self._bad(f"column {lost[0]} has no one: no worker holds that subset", "a one in every column")
        return held

    def _content(self) -> bytes:
        try:
            content = Path(self.path).expanduser().read_bytes()
        except OSError as error:
            raise ValueError(f"path={self.path}: {error.strerror or error}; give a file that can be read") from error
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        if self.digest not in ("", digest):
            raise ValueError(f"digest={self.digest}: the file has changed since; leave it out to take it as it is now")
        self.digest = digest
        return content

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Number and words of each line, without comments (from # on) and empty ones."""
        try:
            text = self._content().decode()
        except UnicodeDecodeError as error:
            raise self._bad("no text in UTF-8", "a text file") from error
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].replace(",", " ").split()
            if words:
                yield number, words

    def _bad(self, wrong: str, right: str) -> ValueError:
        return ValueError(f"path={self.path}: {wrong}; give {right}")
