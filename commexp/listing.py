"""Files that a user gives with an experiment: what they say counts, not where they lie."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from commexp.files import LISTING, PACKED, UNPACKING, read_bytes, reason, text_lines, unpacked


@dataclass
class Listing:
    """``path``: the file, plain or packed (see files.unpacked), ``~`` for the home folder. ``digest``: 16 hex of
    BLAKE2b of its bytes, filled in, so that a changed file is another experiment and a moved one is not. ``content``
    raises ValueError if the file cannot be read, is larger than LISTING, or is not the one of ``digest``; ``lines``,
    for what is no text, and for a line of more than LINE bytes. ``key``: what errors call the path."""

    key: ClassVar[str] = "path"
    path: str = field(metadata={"location": True})
    digest: str = ""

    def content(self) -> bytes:
        """As it is unpacked."""
        try:
            packed = read_bytes(self.path, LISTING)
        except (OSError, ValueError) as error:  # the latter for a NUL in the path
            raise self.bad(reason(error), "a file that can be read") from error
        digest = hashlib.blake2b(packed, digest_size=8).hexdigest()
        if self.digest not in ("", digest):
            raise ValueError(f"digest={self.digest}: the file has changed since; leave it out to take it as it is now")
        self.digest = digest
        try:
            return unpacked(io.BytesIO(packed), LISTING).read()
        except (*UNPACKING, ValueError) as error:
            raise self.bad(f"cannot be unpacked ({reason(error)})", "a sound file") from error

    @property
    def suffix(self) -> str:
        """How its name ends, without what packing added to it."""
        name = Path(self.path)
        return (name.with_suffix("") if name.suffix.lower() in PACKED else name).suffix.lower()

    def lines(self) -> Iterator[tuple[int, list[str]]]:
        """Number and words of each line, with blanks or commas between, without comments (from # on) and empty ones."""
        lines = text_lines(io.BytesIO(self.content()))
        try:
            for number, line in lines:
                yield number, line.partition(b"#")[0].decode().replace(",", " ").split()
        except UnicodeDecodeError as error:
            raise self.bad("no text in UTF-8", "a text file") from error
        except ValueError as error:
            raise self.bad(str(error), "a text file") from error

    def bad(self, wrong: str, right: str) -> ValueError:
        return ValueError(f"{self.key}={self.path}: {wrong}; give {right}")
