"""The Netflix Prize data: ratings of films, grouped by film."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

import numpy as np

from commexp.files import PACKED
from commexp.problems.ratings.files import NumberedRow, RatingFiles, groups, numbered, table, within
from commexp.problems.ratings.limits import RatingLimits, shown
from commexp.problems.ratings.triples import Triples

NAMES = ("combined_data_*.txt", "mv_*.txt", "training_set/mv_*.txt")  # the files that are looked for in a folder
CUSTOMERS, MOVIES = 2_649_429, 17_770  # the largest ids, as stated in the README of the Prize
COLUMNS: dict[str, type[np.generic]] = {
    "user": np.int32,
    "rating": np.float32,
    "year": np.int16,
    "month": np.int8,
    "day": np.int8,
}
MOVIE = re.compile(rb"([0-9]{1,9}):[ \r]*\n?")
DATE = re.compile(rb"([0-9]{4})-(0?[1-9]|1[0-2])-(0?[1-9]|[12][0-9]|3[01])")


@dataclass
class Netflix(RatingFiles):
    """``path``: a file in which a line ``movie:`` precedes the lines ``customer,rating,date`` of that film, with dates
    such as 2005-09-06; or a folder of combined_data_1.txt, ... or of mv_0000001.txt, ... The published qualifying and
    probe sets are not used. For fields and errors see RatingFiles. Source: Bennett and Lanning, The Netflix Prize,
    2007.
    """

    path: str = field(default="data/netflix", metadata={"location": True})
    scale: Optional[list[float]] = field(default_factory=lambda: [1.0, 5.0])  # noqa: UP045

    def wanted(self) -> str:
        return "a folder with combined_data_*.txt or mv_*.txt, such as those of the Netflix Prize"

    def files(self) -> list[Path]:
        if os.path.isfile(self.place):
            return [self.place]
        paths_by_name = {
            name: sorted(p for end in PACKED for p in self.place.glob(f"{name}{end}") if p.is_file()) for name in NAMES
        }
        forms = [name for name, paths in paths_by_name.items() if paths]
        if len(forms) > 1:
            raise ValueError(
                f"path={self.path}: holds {' and '.join(forms)}, the same ratings twice; leave one of them"
            )
        return paths_by_name[forms[0]] if forms else []

    def limits(self, paths: Sequence[Path]) -> RatingLimits:
        return replace(super().limits(paths), users=CUSTOMERS, items=MOVIES, stated="the Prize's go")

    def read(self, paths: Sequence[Path]) -> Triples:
        parts = [_parsed(text) for text in groups(paths, self.is_folder, whole_files=True)] or [_parsed(b"")]
        users, items, ratings, times = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Triples(users, items, ratings, times)

    def lines(self, paths: Sequence[Path]) -> Iterator[NumberedRow]:
        limits, named = self.limits(paths), self.is_folder
        for path in paths:
            movie, where, empty = None, "", False  # empty: no rating since the last movie
            for number, line in numbered(path, named):
                words, where = line.rstrip(b"\r").split(b","), f"{within(path, named)}line {number}"
                start = MOVIE.fullmatch(line)
                if start:
                    if empty:
                        raise ValueError(f"{where}: no rating precedes it; remove that movie")
                    movie, empty = start[1], True
                    if fault := limits.id_fault("item", movie):
                        raise ValueError(f"{where}: {fault}")
                    continue
                if movie is None:
                    raise ValueError(f"{where}: no movie precedes it; give a line such as 17: before it")
                date, empty = DATE.fullmatch(words[-1]), False
                if len(words) != 3 or not date:
                    raise ValueError(f"{where}: {shown(line.rstrip())} is no rating; give customer,rating,date")
                yield where, [words[0], movie, words[1], b"".join(date.groups())]
            if empty:
                raise ValueError(f"{where}: its movie has no rating; remove that movie")


def _parsed(text: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Users, items, ratings and times. Only the lines of movies contain a colon."""
    if text[:1] in b"\r\n \t" or any(empty in text for empty in (b"\n\n", b"\n\r", b"\n ", b"\n\t")):
        text = re.sub(rb"(?m)^[ \t\r]*\n", b"", text)
    bodies, movies, end = [], [], 0
    for colon in np.flatnonzero(np.frombuffer(text, np.uint8) == ord(":")).tolist():
        start = text.rfind(b"\n", 0, colon) + 1
        header = MOVIE.match(text, start)
        if header is None or header.end(1) != colon or text[header.end() - 1 : header.end()] != b"\n":
            raise ValueError("a colon within a line")
        bodies.append(text[end:start])
        movies.append(int(header[1]))
        end = header.end()
    bodies.append(text[end:])
    before, *counts = (body.count(b"\n") for body in bodies)
    if before or 0 in counts:
        raise ValueError("a rating without a movie, or a movie without a rating")
    columns = table(b"".join(bodies).replace(b"-", b","), b",", COLUMNS)
    if len(columns["user"]) != sum(counts):
        raise ValueError("lines that are none")
    months, days = columns["month"], columns["day"]
    if not ((months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)).all():
        raise ValueError("a date that is none")
    times = (columns["year"].astype(np.int32) * 100 + months) * 100 + days
    return columns["user"], np.repeat(np.array(movies, np.int32), np.array(counts, np.int64)), columns["rating"], times
