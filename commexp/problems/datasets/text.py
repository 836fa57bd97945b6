"""Text as a stream of tokens, for language models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Optional, Union

import numpy as np
import torch
from torch import Tensor

from commexp.problems.data import Data, Dataset
from commexp.problems.datasets.files import place
from commexp.problems.datasets.text_files import WANTED, content_sum, read_texts
from commexp.problems.datasets.token_files import is_prepared, largest, token_files, tokens_sum
from commexp.problems.tokens import Tokens

LEVELS = ("byte", "char")
FILE, SPEAKER = "file", "speaker"
#: the line that names a speaker: after an empty line or at the beginning, it ends in a colon
SPEECH = re.compile(r"(?:\A|\n[ \t]*\n)([^\n:]{1,60}):[ \t]*(?=\n)")
CODES = 0x110000  # code points of Unicode


@dataclass(eq=False)
class Source:
    """The tokens of one file, or one speaker. ``number``: its place in the order of the file names, then in that of
    first speeches. ``order``: the digest by which sources are chosen for the test."""

    number: int
    order: bytes
    tokens: np.ndarray


@dataclass
class Text(Dataset):
    """Windows of ``block`` tokens. ``path``: a UTF-8 file, plain or compressed (see files.unpacked); a folder, of which
    all UTF-8 files at any depth are read; a glob; or a folder with nanoGPT's train.bin and val.bin (uint16), which stay
    on disk. Null: the modules of Python's own library, about 10 MB, which are on every machine; another version of
    Python is another text. Files are joined in the order of their names; hidden ones are left out.

    ``level``: byte, tokens are the bytes, vocabulary 256; or char, tokens are characters, and the vocabulary is the
    sorted set of those of the training text, with one more for all others if the test text has others. ``vocabulary``:
    of token files; null for their largest token + 1, for which both are read once.

    ``test``: the share of the text that is held out, the same for every seed: whole files, in the order of the BLAKE2b
    sums of their content, as far as they fit into the share; if none does, or there is only one, the end of each. Of
    token files val.bin is the test text. ``validation``: a share of the training text (a number in (0, 1)) or a number
    of tokens, chosen in the same way, that is not trained on and replaces the test text, so that tuning does not use
    it. ``tokens``, ``test_tokens``: uses only the first tokens of the training text and of the test text; null for all.
    ``digest``: the first 16 hex digits of blake2b over the blake2b sums of the texts, filled in if they can be read;
    see token_files.tokens_sum for token files.

    ``source``: what partition=by_source assigns as a whole and what is held out as a whole: file; or speaker: in a file
    that holds plays, a line after an empty line that ends in a colon names who speaks from there on, and all speeches
    of a speaker in a file are joined. The number of the source in which a window begins is the window's, if there are
    several. Raises FileNotFoundError
    for a missing file; ValueError for a file that is not UTF-8 text, for a text with fewer windows than workers, and
    for a wrong digest.
    """

    path: Optional[str] = field(default=None, metadata={"location": True})  # noqa: UP045  (OmegaConf reads it so)
    level: str = "byte"
    block: int = 64
    vocabulary: Optional[int] = None  # noqa: UP045
    test: float = 0.1
    validation: Optional[Union[int, float]] = None  # noqa: UP007, UP045
    tokens: Optional[int] = None  # noqa: UP045
    test_tokens: Optional[int] = 100_000  # noqa: UP045
    digest: str = ""
    source: str = field(default=FILE, metadata={"added": True})

    def __post_init__(self) -> None:
        if self.path == "":
            raise ValueError(f"path=: empty; give {WANTED}, or null for the modules of Python's library")
        if self.level not in LEVELS:
            raise ValueError(f"level={self.level}: unknown; give {' or '.join(LEVELS)}")
        if self.source not in (FILE, SPEAKER):
            raise ValueError(f"source={self.source}: unknown; give {FILE} or {SPEAKER}")
        if self.source == SPEAKER and self._prepared:
            raise ValueError(f"source={self.source}: train.bin and val.bin hold tokens, not lines; give {FILE}")
        for name in ("block", "vocabulary", "tokens", "test_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must not be less than 1; give a number of tokens")
        if not 0.01 <= self.test <= 0.99:
            raise ValueError(f"test={self.test}: out of range; give the share of the test set, such as 0.1")
        if self.validation is not None and not (
            0 < self.validation < 1 if isinstance(self.validation, float) else self.validation >= 1
        ):
            raise ValueError(
                f"validation={self.validation}: out of range; give a share in (0, 1), a number of tokens, or null"
            )
        if self.vocabulary is not None and not self._prepared:
            raise ValueError(
                f"vocabulary={self.vocabulary}: that of a text follows from it; give null, or, as dataset.path, a "
                "folder with train.bin and val.bin"
            )
        if self.level != "byte" and self._prepared:
            raise ValueError(f"level={self.level}: train.bin and val.bin hold tokens already; leave it out")
        found = self._sum()
        if self.digest and found not in (self.digest, ""):
            raise ValueError(self._changed())
        self.digest = self.digest or found

    def load(self, workers: int, seed: int, dtype: torch.dtype) -> Data:
        train, test = self._token_files() if self._prepared else self._texts()
        several = len(train) > 1
        vocabulary = self._vocabulary(train + test)
        if self.validation is not None:
            train, test = held_out(train, self._count(self.validation, train))
        streams = [_joined(train, self.tokens), _joined(test, self.test_tokens)]
        self._check_lengths(len(streams[0]), len(streams[1]), workers)
        sizes: list[float | None] = [None, None] if self._prepared else [_bytes(stream) for stream in streams]
        if self.level == "char":
            streams, vocabulary = numbered(*streams)
        train_x, test_x = (Tokens(s, self.block, vocabulary, size) for s, size in zip(streams, sizes, strict=True))
        return Data(train_x, torch.empty(0), test_x, source=_sources(train, train_x) if several else None)

    @property
    def _folder(self) -> Path:
        return place(None, self.path or "")

    @property
    def _prepared(self) -> bool:
        return self.path is not None and is_prepared(self._folder)

    def _sum(self) -> str:
        try:
            return tokens_sum(self._folder) if self._prepared else content_sum(read_texts(self.path))
        except (OSError, ValueError):
            return ""  # load raises the error

    def _changed(self) -> str:
        return f"digest={self.digest}: the text has changed since; leave it out to take it as it is now"

    def _token_files(self) -> tuple[list[Source], list[Source]]:
        train, test = token_files(f"dataset.path={self.path}", self._folder)
        if self.digest not in ("", tokens_sum(self._folder)):
            raise ValueError(f"dataset.{self._changed()}")
        return [Source(0, b"", train)], [Source(0, b"", test)]

    def _texts(self) -> tuple[list[Source], list[Source]]:
        texts = read_texts(self.path)
        if self.digest not in ("", content_sum(texts)):
            raise ValueError(f"dataset.{self._changed()}")
        read = bytes_of if self.level == "byte" else codes_of
        if self.source == SPEAKER:
            texts = [speech for text in texts for speech in by_speaker(text)]
            if len(texts) < 2:
                raise ValueError(
                    f"dataset.source={SPEAKER}: no line after an empty one names a speaker, as NAME: does; give {FILE}"
                )
        sources = [Source(i, hashlib.blake2b(text).digest(), read(text)) for i, text in enumerate(texts)]
        return held_out(sources, round(self.test * _length(sources)))

    def _vocabulary(self, sources: Sequence[Source]) -> int:
        if not self._prepared:
            return 256
        return self.vocabulary or 1 + max(largest(source.tokens) for source in sources)

    def _count(self, validation: int | float, train: Sequence[Source]) -> int:
        """How many tokens of the training text ``validation`` is."""
        length = _length(train)
        count = round(validation * length) if isinstance(validation, float) else validation
        if not 1 <= count < length:
            raise ValueError(
                f"dataset.validation={validation}: the training text has {length} tokens; give fewer, or null for the "
                "test text"
            )
        return count

    def _check_lengths(self, train: int, test: int, workers: int) -> None:
        """Raises ValueError where there are fewer training windows than workers, or no test window."""
        needed = f"a window for each of {workers} workers"
        for part, length, windows, need in (("training", train, workers, needed), ("test", test, 1, "a window")):
            most = (length - 1) // windows
            if most < self.block:
                wrong = f"the {part} text has {length} tokens, too few for {need}"
                right = f"{most} or less" if most > 0 else "a longer text"
                raise ValueError(f"dataset.block={self.block}: {wrong}; give {right}")


def held_out(sources: Sequence[Source], count: int) -> tuple[list[Source], list[Source]]:
    """Of ``sources`` those that are kept, in their order, and those that are held out, together ``count`` tokens or
    less: whole ones, by their ``order``, that fit; if none does, or there is only one, the end of each of them."""
    left, chosen = count, []
    for source in sorted(sources, key=lambda s: s.order) if len(sources) > 1 else ():
        if len(source.tokens) <= left:
            chosen.append(source)
            left -= len(source.tokens)
    if chosen:
        return [source for source in sources if source not in chosen], chosen
    share, parts = count / _length(sources), []
    for source in sources:
        cut = len(source.tokens) - round(share * len(source.tokens))
        parts.append([replace(source, tokens=tokens) for tokens in (source.tokens[:cut], source.tokens[cut:])])
    return [kept for kept, _ in parts], [end for _, end in parts]


def by_speaker(text: bytes) -> list[bytes]:
    """The speeches of each speaker, joined, with the lines that name them, in the order of their first speeches; what
    stands before the first speech is a source of its own."""
    content = text.decode().replace("\r\n", "\n")
    starts = [(match.start(), match[1]) for match in SPEECH.finditer(content)]
    speeches: dict[str, list[str]] = {}
    for (start, name), (end, _) in pairwise([(0, ""), *starts, (len(content), "")]):
        if end > start:
            speeches.setdefault(name, []).append(content[start:end].lstrip("\n"))
    return ["\n\n".join(some).encode() for some in speeches.values()]


def bytes_of(text: bytes) -> np.ndarray:
    """uint8, one per byte."""
    return np.frombuffer(text, np.uint8)


def codes_of(text: bytes) -> np.ndarray:
    """uint32 code points, one per character."""
    return np.frombuffer(text.decode().encode("utf-32-le"), "<u4")


def numbered(train: np.ndarray, test: np.ndarray) -> tuple[list[np.ndarray], int]:
    """The code points of both texts as ranks among the sorted different ones of ``train``; others in ``test`` have the
    next number. Also the size of the vocabulary."""
    known = np.zeros(CODES, bool)
    known[train] = True
    count = int(known.sum())
    rank = np.where(known, np.cumsum(known) - 1, count).astype(np.min_scalar_type(count))
    return [rank[train], rank[test]], count + int(not known[test].all())


def _length(sources: Sequence[Source]) -> int:
    return sum(len(source.tokens) for source in sources)


def _joined(sources: Sequence[Source], most: int | None) -> np.ndarray:
    """The first ``most`` tokens, all if that is None; of one source without a copy."""
    tokens = [source.tokens for source in sources]
    return (tokens[0] if len(tokens) == 1 else np.concatenate(tokens))[:most]


def _bytes(codes: np.ndarray) -> float:
    """How many bytes of UTF-8 a token has on average: of bytes 1; of code points 1 to 4."""
    if codes.dtype == np.uint8:
        return 1.0
    return float(1 + sum(np.mean(codes >= first) for first in (0x80, 0x800, 0x10000)))


def _sources(sources: Sequence[Source], windows: Tokens) -> Tensor:
    """The number of the source in which each window begins, [m]."""
    ends = np.cumsum([len(source.tokens) for source in sources])
    at = np.searchsorted(ends, np.arange(len(windows)) * windows.block, side="right")
    return torch.tensor([source.number for source in sources])[torch.from_numpy(at)]
