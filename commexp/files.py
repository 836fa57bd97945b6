"""Files from outside: regular ones alone, up to a stated size, read as data.

A run folder, a data file or a listing may come from a stranger. A fifo would block whoever opens it, a device never
ends, and a few bytes can stand for gigabytes. Each function here raises OSError where a path cannot be read and
ValueError where its content is not what it has to be; both say why in one line.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar

import yaml

DOCUMENT = 2**24  # bytes of a JSON or YAML file: those of a run hold some kilobytes
TABLE = 2**30  # bytes of a CSV file: 1,000,000 rows take about 300 MB
VALUES = 100_000  # of a YAML file: those of a run hold a hundred, and eight for each worker with its own link
COLUMNS = 1000  # of a CSV file: those of a run have up to thirty
LONG = 2000  # letters of one text that are shown
DEPTH = 64  # lists and mappings within each other; a config has six
LISTING = 2**27  # bytes of a listing such as a graph or a trace: a matrix of 2,000 x 2,000 takes 100 MB
LINE = 2**24  # bytes of a line of a text: a row of that matrix takes 50 kB
BARREN = 2**24  # bytes on end of a text in which nothing stands but blanks and comments: a header is far shorter
RATIO, SLACK = 100, 2**23  # data shrink to a tenth, rows of zeros and ones to a fiftieth; a bomb to a thousandth
PACKED = ("", ".gz", ".bz2", ".xz", ".zip")  # how the name of a packed file may go on
#: what reading from ``unpacked`` raises where the packed file is damaged or cut
UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
BLOCK = 2**20  # bytes of a text that are looked at together
NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII
)
SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it has been built


def open_regular(path: str | Path, limit: int | None = None) -> IO[bytes]:
    """The file, open for reading. Never blocks. Raises OSError for what is no regular file, and for one of more than
    ``limit`` bytes."""
    handle = os.open(os.path.expanduser(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        about = os.fstat(handle)
        if stat.S_ISDIR(about.st_mode):
            raise OSError(None, "a folder, not a file")
        if not stat.S_ISREG(about.st_mode):
            raise OSError(None, "no regular file")
        if limit is not None and about.st_size > limit:
            raise OSError(None, f"{about.st_size} bytes are more than the {limit} that are read")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes."""
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:  # it has grown since
        raise OSError(None, f"more than the {limit} bytes that are read")
    return content


def read_text(path: str | Path, limit: int = DOCUMENT) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark."""
    return read_bytes(path, limit).decode("utf-8-sig")


def read_json(path: str | Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds, as plain values. An alias is refused: a few of them can stand for billions of values."""
    text, depth, values = read_text(path), 0, 0
    try:
        for event in yaml.parse(text, Loader=SAFE):
            values += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"holds an alias (*{event.anchor})")
            if values > VALUES:
                raise ValueError(f"holds more than {VALUES} values")
            if depth > DEPTH:
                raise ValueError("nested too deep")
        return yaml.load(text, Loader=SAFE)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error) or "nested too deep") from error


def read_csv(path: str | Path) -> str:
    """The text of a CSV file: a header, every column with a name of its own, and rows of as many cells; empty where
    there is no header."""
    text = read_text(path, TABLE)
    try:
        rows = csv.reader(io.StringIO(text, newline=""))
        header = next((row for row in rows if row), [])
        if len(header) > COLUMNS:
            raise ValueError(f"{len(header)} columns are more than the {COLUMNS} that are read")
        if "" in header:
            raise ValueError("a column has no name")
        if len({*header}) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise ValueError(f"column {twice} stands there twice")
        for row in rows:
            if row and len(row) != len(header):
                raise ValueError(f"line {rows.line_num}: {len(row)} cells under {len(header)} columns")
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return text if header else ""


def printable(text: str) -> str:
    """The text in one line that every terminal, page and table shows as it is: what moves a cursor, changes the order
    of letters or is no letter at all becomes its escape. Of a very long one the beginning and a digest."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    if len(text) > LONG + 100:  # room for what is added, so that what is printable stays as it is
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        text = f"{text[:LONG]}... ({len(text)} letters, {digest})"
    return text


def unpacked(file: IO[bytes], most: int | None = None) -> IO[bytes]:
    """What an open file holds, unpacked as it is read where its first bytes are those of gzip, bzip2, xz or zip.

    A zip has to hold one file. Reading a damaged one raises one of ``UNPACKING``; one that unpacks to more than
    ``most`` bytes, or where that is None to more than SLACK bytes and RATIO times what has been read of it so far,
    ValueError. Raises ValueError for a zip that is none, that holds several files, or that needs a password."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=file), file, most), BLOCK)
    if start.startswith(b"BZh"):
        return io.BufferedReader(_Bounded(bz2.BZ2File(file), file, most), BLOCK)
    if start.startswith(b"\xfd7zXZ\x00"):
        return io.BufferedReader(_Bounded(lzma.LZMAFile(file), file, most), BLOCK)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ValueError(f"a damaged zip: {error}") from error
        names = [info for info in archive.infolist() if not info.is_dir()]
        if len(names) != 1:
            raise ValueError(f"a zip of {len(names)} files, of which one has to be chosen; unpack it")
        try:
            return io.BufferedReader(_Bounded(archive.open(names[0]), file, most), BLOCK)
        except (RuntimeError, NotImplementedError) as error:  # a password, a method of packing
            raise ValueError(f"a zip that cannot be unpacked: {error}") from error
    return file


class _Bounded(io.RawIOBase):
    """What ``inner`` unpacks from ``packed``: ``most`` bytes, or as many as SLACK and RATIO allow. Raises ValueError
    where it is more."""

    def __init__(self, inner: Any, packed: IO[bytes], most: int | None) -> None:
        self.inner, self.packed, self.most, self.count = inner, packed, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = int(self.inner.readinto(buffer))
        self.count += size
        most = SLACK + RATIO * self.packed.tell() if self.most is None else self.most
        if self.count > most:
            raise ValueError(f"unpacks to more than {most} bytes, which are too many for so small a file")
        return size

    def close(self) -> None:
        if not self.closed:
            self.inner.close()
        super().close()


@contextmanager
def reading(path: str | Path) -> Iterator[IO[bytes]]:
    """What a regular file holds, unpacked. Raises ValueError, which says why in one line, where it cannot be read, or
    is damaged."""
    try:
        with open_regular(path) as file, unpacked(file) as content:
            yield content
    except UNPACKING as error:
        raise ValueError(reason(error)) from error


def reason(error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(said).split())


def text_blocks(file: IO[bytes], longest: int = LINE) -> Iterator[bytes]:
    """A text in pieces of about BLOCK bytes, each of whole lines, without a byte order mark. A last line without an end
    gets one. Raises ValueError for a line of more than ``longest`` bytes that ends in another piece than it begins in,
    and for more than BARREN bytes on end of empty lines and comments (from # on)."""
    begun: list[bytes] = []  # of a line whose end has not come
    size = lines = barren = 0
    while block := file.read(BLOCK):
        if not lines and not begun:
            block = block.removeprefix(b"\xef\xbb\xbf")
        end = block.rfind(b"\n") + 1
        if end:
            whole = b"".join([*begun, block[:end]])
            empty = not whole.strip() or (b"#" in whole and not any(map(_says, whole.split(b"\n"))))
            barren = barren + len(whole) if empty else 0
            if barren > BARREN:
                raise ValueError(f"line {lines + 1}: more than {BARREN} bytes on end are empty lines and comments")
            yield whole
            lines += whole.count(b"\n")
            begun, size = [], 0
        begun.append(block[end:])
        size += len(begun[-1])
        if size > longest:
            raise ValueError(f"line {lines + 1}: more than {longest} bytes are no line of such a file")
    if size:
        yield b"".join([*begun, b"\n"])


def text_lines(file: IO[bytes], longest: int = LINE) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line of a text that holds more than blanks and a comment (from # on), both of which
    stay; otherwise as by ``text_blocks``. Comments count as nothing, too."""
    number, barren = 0, 0
    for block in text_blocks(file, longest):
        if not block.strip():
            number += block.count(b"\n")
            continue
        for line in block.splitlines() if b"\r" in block else block.split(b"\n")[:-1]:
            number += 1
            if _says(line):
                barren = 0
                if len(line) > longest:
                    raise ValueError(f"line {number}: more than {longest} bytes are no line of such a file")
                yield number, line
            else:
                barren += len(line) + 1
                if barren > BARREN:
                    raise ValueError(f"line {number}: more than {BARREN} bytes on end are empty lines and comments")


def _says(line: bytes) -> bytes:
    """What a line holds besides blanks and a comment."""
    return line.partition(b"#")[0].strip()


def number(word: str) -> float | None:
    """The value of a number in ASCII, infinite or NaN where the word says so; None for every other word. Python's own
    float() reads 1_0 and the digits of all scripts."""
    return float(word) if NUMBER.fullmatch(word) else None


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
