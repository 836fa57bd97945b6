"""MovieLens: ratings of films, in any of the published formats."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from commexp.problems.datasets.rating_bounds import Bounds, shown
from commexp.problems.datasets.rating_files import CODES, Line, RatingFiles, table
from commexp.problems.datasets.triples import Triples

NAMES = ("ratings.csv", "ratings.dat", "u.data")  # what a folder is searched for
HEADER = b"userId,movieId,rating,timestamp"
COUNTS = re.compile(r"([0-9]{1,9}) (users|items)")


@dataclass
class MovieLens(RatingFiles):
    """``path``: u.data (100K: tabs), ratings.dat (1M, 10M: ``::``), ratings.csv (latest, 20M and later: commas below a
    header), or the folder that holds one of them; which format it is, the first line says. Where u.info (100K) lies
    beside the file, ids go up to the numbers of users and items there. Fields and errors: see RatingFiles. Source:
    Harper and Konstan, ACM TiiS 5(4), 2015; grouplens.org/datasets/movielens.
    """

    path: str = field(default="data/ml-latest-small", metadata={"location": True})
    scale: Optional[list[float]] = field(default_factory=lambda: [0.5, 5.0])  # noqa: UP045

    def wanted(self) -> str:
        return f"a folder with {NAMES[0]}, {NAMES[1]} or {NAMES[2]} from https://grouplens.org/datasets/movielens"

    def files(self) -> list[Path]:
        places = [self.place / name for name in NAMES] if self.place.is_dir() else [self.place]
        return [place for place in places if place.is_file()][:1]

    def bounds(self, paths: Sequence[Path]) -> Bounds:
        info = paths[0].with_name("u.info")
        counts = COUNTS.findall(info.read_text(encoding="latin-1")) if info.is_file() else []
        most = {name: float(count) for count, name in counts}
        users, items = most.get("users", math.inf), most.get("items", math.inf)
        return replace(super().bounds(paths), users=users, items=items, stated="u.info says")

    def read(self, paths: Sequence[Path]) -> Triples:
        text = paths[0].read_bytes()
        separator, rows = _format(text)
        text = text[rows:]
        if separator == b"::":
            if b"," in text:
                raise ValueError("a comma")
            text, separator = text.replace(b"::", b","), b","
        columns = table(text, separator, CODES)
        return Triples(columns["user"], columns["item"], columns["rating"], columns["time"])

    def lines(self, paths: Sequence[Path]) -> Iterator[Line]:
        within = f"{paths[0].name}: " if self.place.is_dir() else ""
        with open(paths[0], "rb") as file:
            try:
                separator, rows = _format(file.readline())
            except ValueError as error:
                raise ValueError(f"{within}line 1: {error}") from error
            file.seek(0)
            for number, line in enumerate(file, 1):
                if not line.strip(b" \r\n") or (number == 1 and rows):
                    continue
                words = line.rstrip(b"\r\n").split(separator)
                if len(words) != 4:
                    wrong = f"{shown(line.rstrip())} has {len(words)} words between {separator.decode()!r}"
                    raise ValueError(f"{within}line {number}: {wrong}; give user, item, rating and time")
                yield f"{within}line {number}", words


def _format(text: bytes) -> tuple[bytes, int]:
    """What stands between words, and how many bytes the header takes. Raises ValueError for a format that is none of
    the published ones."""
    first, newline, _ = text.partition(b"\n")
    if first.rstrip(b"\r") == HEADER:
        return b",", len(first) + len(newline)
    for separator in (b"::", b"\t"):
        if separator in first:
            return separator, 0
    if not text.strip():
        return b"\t", 0
    raise ValueError(
        f"{shown(first.rstrip())} is in none of the formats; give {HEADER.decode()}, or a rating with tabs or ::"
    )
