"""Datasets from files of ratings: finding and reading them, and errors with line numbers."""

from __future__ import annotations

import csv
import io
import os
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from commexp.files import reading, text_blocks, text_lines
from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.files import check_there, content_sum, place
from commexp.problems.datasets.stratified import check_validation
from commexp.problems.ratings.limits import RatingLimits
from commexp.problems.ratings.triples import SPLITS, Triples, divided

NumberedRow = tuple[str, list[bytes]]  # its position for error messages; user, item, rating, time
LONGEST = 2**16  # bytes of a line
GROUP = 2**27  # bytes that are parsed together
CODES: dict[str, type[np.generic]] = {"user": np.int64, "item": np.int64, "rating": np.float64, "time": np.int64}


@dataclass
class RatingFiles(Dataset):
    """``path``: a file, plain or compressed (see files.unpacked), or a folder of such files. ``root``: the folder to
    which it is relative; null for the working directory. ``test``: the share that is held out. ``split``: random, drawn
    from all ratings with the seed, or time, the latest ratings of each user. ``validation``: a number of training
    ratings, chosen in the same way (by time at most so many), that are not trained on and replace the test set, so that
    tuning does not use it. ``digest``: the first 16 hex digits of blake2b over the blake2b sums of the files,
    which identifies their content; filled in if the files can be read. ``scale``: the lowest and the highest rating;
    null for any. Ids are integers from 1 on; in ascending order they become 0, 1, ....

    Raises FileNotFoundError for a missing file. Raises ValueError, with the line number, for lines of another format or
    of more than LONGEST bytes, ids or ratings that are not numbers or out of range, and pairs that occur twice; also
    for an unreadable file, for a wrong digest, and for a split by time without times in the file."""

    path: str = field(default="", metadata={"location": True})
    test: float = 0.2
    split: str = "random"
    root: Optional[str] = field(default=None, metadata={"location": True})  # noqa: UP045
    digest: str = ""
    scale: Optional[list[float]] = None  # noqa: UP045
    validation: Optional[int] = field(default=None, metadata={"added": True})  # noqa: UP045

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(f"path=: empty; give {self.wanted()}")
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.2")
        check_validation(self.validation)
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split}: unknown; give {' or '.join(SPLITS)}")
        if self.scale is not None and not (len(self.scale) == 2 and self.scale[0] < self.scale[1]):
            raise ValueError(
                f"scale={list(self.scale)}: is no range; give the lowest and the highest rating, such as [0.5,5], or "
                "null"
            )
        if self.digest:
            self._check()
        else:
            self.digest = content_sum(self.files(), LONGEST)

    @abstractmethod
    def wanted(self) -> str:
        """What ``path`` should be and where to get it, for error messages."""

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that exist. Raises ValueError ('``path=...``') if the choice is ambiguous."""

    @abstractmethod
    def read(self, paths: Sequence[Path]) -> Triples:
        """All ratings, parsed fast. Raises ValueError for another format; the message need not be for users."""

    @abstractmethod
    def lines(self, paths: Sequence[Path]) -> Iterator[NumberedRow]:
        """The ratings one by one, in the order of ``read``. Raises ValueError, with the line, for a line that cannot be
        split into words."""

    def limits(self, paths: Sequence[Path]) -> RatingLimits:
        """The limits of the values in a line."""
        return RatingLimits(scale=(self.scale[0], self.scale[1]) if self.scale else None)

    @property
    def place(self) -> Path:
        return place(self.root, self.path)

    @property
    def is_folder(self) -> bool:
        return os.path.isdir(self.place)

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        key = f"dataset.path={self.path}"
        try:
            paths = self.files()
            if not paths and os.path.lexists(self.place) and not self.is_folder:
                check_there(key, self.place, f"give {self.wanted()}")
            if not paths:
                raise FileNotFoundError(f"{key}: {self.place} is missing or holds no such file; give {self.wanted()}")
            self._check()
        except ValueError as error:
            raise ValueError(f"dataset.{error}") from error
        try:
            triples = self.read(paths)
            sound = self.limits(paths).hold(triples)
        except RatingFileError as error:
            raise ValueError(f"{key}: {_with_advice(str(error), self.wanted())}") from error
        except (ValueError, OverflowError) as error:
            fault = self._first_fault(paths) or f"is not of the format ({' '.join(str(error).split())})"
            raise ValueError(f"{key}: {_with_advice(fault, self.wanted())}") from error
        if not len(triples):
            raise ValueError(f"{key}: holds no rating; give {self.wanted()}")
        if not sound:
            raise ValueError(f"{key}: {_with_advice(self._first_fault(paths), self.wanted())}")
        again = triples.repeated()
        if again is not None:
            where, (user, item, *_) = next(islice(self.lines(paths), again, None))
            pair = f"user {user.decode()} has rated item {item.decode()} before"
            raise ValueError(f"{key}: {where}: {pair}; give each pair once")
        if self.split == "time" and not triples.timed:
            raise ValueError("dataset.split=time: the ratings have no times; give random")
        return divided(triples, self.test, self.split, seed, dtype, self.validation)

    def _check(self) -> None:
        if content_sum(self.files(), LONGEST) not in (self.digest, ""):
            raise ValueError(
                f"digest={self.digest}: the files have changed since; leave it out to take them as they are now"
            )

    def _first_fault(self, paths: Sequence[Path]) -> str:
        """``line 17: what is wrong`` for the first faulty line; empty if there is none."""
        limits = self.limits(paths)
        try:
            return next((f"{where}: {fault}" for where, row in self.lines(paths) if (fault := limits.fault(row))), "")
        except ValueError as error:
            return str(error)


class RatingFileError(ValueError):
    """A file of ratings cannot be read to its end."""


def groups(paths: Sequence[Path], named: bool, whole_files: bool) -> Iterator[bytes]:
    """The text of the files without comments, in pieces of about GROUP bytes, each of whole lines or whole files.
    ``named``: whether error messages include the file name. Raises RatingFileError."""
    blocks: list[bytes] = []
    size = 0
    for path in paths:
        try:
            with reading(path) as file:
                for block in text_blocks(file, LONGEST):
                    blocks.append(_uncommented(block))
                    size += len(block)
                    if size >= GROUP and not whole_files:
                        yield b"".join(blocks)
                        blocks, size = [], 0
        except ValueError as error:
            raise RatingFileError(f"{within(path, named)}{error}") from error
        if size >= GROUP:
            yield b"".join(blocks)
            blocks, size = [], 0
    if blocks:
        yield b"".join(blocks)


def numbered(path: Path, named: bool) -> Iterator[tuple[int, bytes]]:
    """Number and content of each nonempty line, without comments. Raises RatingFileError."""
    try:
        with reading(path) as file:
            for number, line in text_lines(file, LONGEST):
                yield number, line.partition(b"#")[0]
    except ValueError as error:
        raise RatingFileError(f"{within(path, named)}{error}") from error


def within(path: Path, named: bool) -> str:
    """The prefix of the line number in an error message."""
    return f"{path.name}: " if named else ""


def _uncommented(text: bytes) -> bytes:
    return b"\n".join(line.partition(b"#")[0] for line in text.split(b"\n")) if b"#" in text else text


def _with_advice(fault: str, wanted: str) -> str:
    return fault if "; " in fault else f"{fault}; give {wanted}"


def table(text: bytes, separator: bytes, columns: dict[str, type[np.generic]]) -> dict[str, np.ndarray]:
    """Parses columns of numbers; skips blank lines. Raises ValueError for anything else, and for lines with more or
    fewer words than ``columns``."""
    if not text.strip():
        return {name: np.empty(0, kind) for name, kind in columns.items()}
    import pandas as pd  # takes a third of a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of more words, which are detected below
        frame = pd.read_csv(
            io.BytesIO(text), sep=separator.decode(), names=list(columns), dtype=columns, index_col=False,
            quoting=csv.QUOTE_NONE,
        )  # fmt: skip
    if text.count(separator) != len(frame) * (len(columns) - 1):
        raise ValueError(f"lines do not have {len(columns)} words each")
    return {name: frame[name].to_numpy() for name in columns}
