"""Files that a user gives with an experiment: what they say counts, not where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Listing:
    """``path``: the file. ``digest``: 16 hex of BLAKE2b of its bytes, filled in, so that a changed file is another
    experiment and a moved one is not. ``content`` raises ValueError if the file cannot be read, or is not the one of
    ``digest``."""

    path: str = field(metadata={"location": True})
    digest: str = ""

    def content(self) -> bytes:
        try:
            content = Path(self.path).expanduser().read_bytes()
        except OSError as error:
            raise ValueError(f"path={self.path}: {error.strerror or error}; give a file that can be read") from error
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        if self.digest not in ("", digest):
            raise ValueError(f"digest={self.digest}: the file has changed since; leave it out to take it as it is now")
        self.digest = digest
        return content

    def lines(self) -> Iterator[tuple[int, list[str]]]:
        """Number and words of each line, with blanks or commas between, without comments (from # on) and empty ones."""
        try:
            text = self.content().decode()
        except UnicodeDecodeError as error:
            raise self.bad("no text in UTF-8", "a text file") from error
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].replace(",", " ").split()
            if words:
                yield number, words

    def bad(self, wrong: str, right: str) -> ValueError:
        return ValueError(f"path={self.path}: {wrong}; give {right}")
