"""MovieLens: ratings of films, in all published formats."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

import numpy as np

from commexp.files import DOCUMENT, PACKED, read_bytes
from commexp.problems.ratings.files import CODES, NumberedRow, RatingFiles, groups, numbered, table, within
from commexp.problems.ratings.limits import RatingLimits, shown
from commexp.problems.ratings.triples import Triples

NAMES = ("ratings.csv", "ratings.dat", "u.data")  # the files that are looked for in a folder
HEADER = "userId,movieId,rating,timestamp"
SEPARATORS = (b"::", b"\t", b";", b",")  # in a file with a header
#: names of columns in a header, in lower case and without underscores
COLUMNS = {
    **dict.fromkeys((b"userid", b"user"), "user"),
    **dict.fromkeys((b"movieid", b"movie", b"itemid", b"item", b"filmid", b"film"), "item"),
    **dict.fromkeys((b"rating", b"score"), "rating"),
    **dict.fromkeys((b"timestamp", b"time"), "time"),
}
COUNTS = re.compile(r"([0-9]{1,9}) (users|items)")


@dataclass
class MovieLens(RatingFiles):
    """``path``: u.data (100K: tabs), ratings.dat (1M, 10M: ``::``), ratings.csv (latest, 20M and later: commas, with a
    header), or the folder that holds one of them. The first line determines the format. A header may quote its names,
    use variants such as user_id or item_id, and have any order; times may be missing unless the split needs them. If
    u.info (100K) lies beside the file, it limits the ids. For fields and errors see RatingFiles. Source: Harper and
    Konstan, ACM TiiS 5(4), 2015; grouplens.org/datasets/movielens.
    """

    path: str = field(default="data/ml-latest-small", metadata={"location": True})
    scale: Optional[list[float]] = field(default_factory=lambda: [0.5, 5.0])  # noqa: UP045

    def wanted(self) -> str:
        return f"a folder with {NAMES[0]}, {NAMES[1]} or {NAMES[2]} from https://grouplens.org/datasets/movielens"

    def files(self) -> list[Path]:
        places = [self.place / f"{name}{end}" for name in NAMES for end in PACKED] if self.is_folder else [self.place]
        return [place for place in places if os.path.isfile(place)][:1]

    def limits(self, paths: Sequence[Path]) -> RatingLimits:
        try:
            info = read_bytes(paths[0].with_name("u.info"), DOCUMENT).decode("latin-1")
        except OSError:
            info = ""
        most = {name: float(count) for count, name in COUNTS.findall(info)}
        users, items = most.get("users", math.inf), most.get("items", math.inf)
        return replace(super().limits(paths), users=users, items=items, stated="u.info says")

    def read(self, paths: Sequence[Path]) -> Triples:
        (path,) = paths
        _, first = next(numbered(path, self.is_folder), (1, b""))
        form = Format.of(first)
        columns = {name: [np.empty(0, kind)] for name, kind in CODES.items()}
        for i, text in enumerate(groups(paths, self.is_folder, whole_files=False)):
            if form.header and i == 0:
                text = text[text.index(first) + len(first) :]
            separator = form.separator
            if separator == b"::":
                if b"," in text:
                    raise ValueError("a comma")
                text, separator = text.replace(b"::", b","), b","
            for name, column in table(text, separator, {name: CODES[name] for name in form.columns}).items():
                columns[name].append(column)
        users, items, ratings, times = (np.concatenate(blocks) for blocks in columns.values())
        timed = "time" in form.columns
        return Triples(users, items, ratings, times if timed else np.zeros(len(users), np.int64), timed)

    def lines(self, paths: Sequence[Path]) -> Iterator[NumberedRow]:
        (path,), named = paths, self.is_folder
        form: Format | None = None
        for number, line in numbered(path, named):
            where = f"{within(path, named)}line {number}"
            if form is None:
                try:
                    form = Format.of(line)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from error
                if form.header:
                    continue
            words = line.rstrip(b"\r").split(form.separator)
            if len(words) != len(form.columns):
                *others, last = form.columns
                wrong = f"{shown(line.rstrip())} has {len(words)} words between {form.separator.decode()!r}"
                raise ValueError(f"{where}: {wrong}; give {', '.join(others)} and {last}")
            values = dict(zip(form.columns, words, strict=True))
            yield where, [values.get(name, b"0") for name in CODES]


@dataclass(frozen=True)
class Format:
    """``separator``: between the words of a line. ``columns``: their names, out of CODES; time may be missing.
    ``header``: whether the first line is a header."""

    separator: bytes
    columns: Sequence[str]
    header: bool

    @staticmethod
    def of(first: bytes) -> Format:
        """The format, from the first nonempty line. Raises ValueError for an unknown format."""
        for separator in SEPARATORS:
            names = [COLUMNS.get(_plain(word), "") for word in first.split(separator)]
            if set(CODES) - {"time"} <= set(names) <= set(CODES) and len(set(names)) == len(names):
                return Format(separator, names, True)
        for separator in (b"::", b"\t"):
            if separator in first:
                names = list(CODES)
                return Format(separator, names[:3] if len(first.split(separator)) == 3 else names, False)
        if not first.strip():
            return Format(b"\t", list(CODES), False)
        raise ValueError(
            f"{shown(first.rstrip())} is in none of the formats; give {HEADER}, or a rating with tabs or ::"
        )


def _plain(name: bytes) -> bytes:
    """The name of a column in lower case, without quotes, blanks and underscores."""
    return name.strip(b" \r\"'").lower().replace(b"_", b"").replace(b" ", b"")
