"""Reading files that may come from strangers: only regular files, up to a size limit, as data.

Opening a fifo would block, a device never ends, and a small archive can expand to gigabytes. Each function here raises
OSError if a path cannot be read and ValueError if its content is invalid; both messages are one line.
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

DOCUMENT = 2**24  # bytes of a JSON or YAML file; those of a run have a few kilobytes
TABLE = 2**30  # bytes of a CSV file: 1,000,000 rows take about 300 MB
VALUES = 100_000  # of a YAML file; that of a run has a hundred, and eight per worker with its own link
COLUMNS = 1000  # of a CSV file; those of a run have up to thirty
LONG = 2000  # characters of a text that are shown
DEPTH = 64  # nesting of lists and mappings; a config has six levels
LISTING = 2**27  # bytes of a listing such as a graph or a trace: a matrix of 2,000 x 2,000 takes 100 MB
LINE = 2**24  # bytes of a line of a text: a row of that matrix takes 50 kB
BARREN = 2**24  # consecutive bytes of blank lines and comments; headers are far shorter
RATIO, SLACK = 100, 2**23  # data compress to a tenth, rows of zeros and ones to a fiftieth, a zip bomb to a thousandth
PACKED = ("", ".gz", ".bz2", ".xz", ".zip")  # suffixes of compressed files
#: the errors of reading from ``unpacked`` if the compressed file is damaged or truncated
UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
BLOCK = 2**20  # bytes of a text that are processed together
NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII
)
SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader, if available, is ten times as fast


def open_regular(path: str | Path, limit: int | None = None) -> IO[bytes]:
    """Opens a regular file for reading, without blocking. Raises OSError for anything else, and for a file of more than
    ``limit`` bytes."""
    handle = os.open(os.path.expanduser(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        about = os.fstat(handle)
        if stat.S_ISDIR(about.st_mode):
            raise OSError(None, "a folder, not a file")
        if not stat.S_ISREG(about.st_mode):
            raise OSError(None, "not a regular file")
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
    if len(content) > limit:  # the file has grown
        raise OSError(None, f"more than the {limit} bytes that are read")
    return content


def read_text(path: str | Path, limit: int = DOCUMENT) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark."""
    return read_bytes(path, limit).decode("utf-8-sig")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file as plain values, see ``parsed_yaml``."""
    return parsed_yaml(read_text(path))


def parsed_yaml(text: str) -> Any:
    """The plain values of a YAML text. Refuses aliases, because a few can expand to billions of values."""
    depth, values = 0, 0
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
    """The text of a CSV file after checks: a header of unique names, and rows of the same length; empty if there is no
    header."""
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
            raise ValueError(f"column {twice} occurs twice")
        for row in rows:
            if row and len(row) != len(header):
                raise ValueError(f"line {rows.line_num}: {len(row)} cells under {len(header)} columns")
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return text if header else ""


def printable(text: str) -> str:
    """The text as one printable line for terminals, pages and tables: control characters, direction marks and other
    unprintable characters are escaped. A very long text is cut and gets a digest."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    if len(text) > LONG + 100:  # leaves room for the digest, so that the function is idempotent
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        text = f"{text[:LONG]}... ({len(text)} letters, {digest})"
    return text


def unpacked(file: IO[bytes], most: int | None = None) -> IO[bytes]:
    """The content of an open file, decompressed on the fly if its first bytes are those of gzip, bzip2, xz or zip.

    A zip must hold exactly one file. Reading a damaged file raises one of ``UNPACKING``. Reading raises ValueError if
    the file expands to more than ``most`` bytes, or, if that is None, to more than SLACK bytes plus RATIO times the
    bytes read so far. Raises ValueError for a damaged zip, a zip of several files, or one with a password."""
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
        except (RuntimeError, NotImplementedError) as error:  # a password, or an unknown compression method
            raise ValueError(f"a zip that cannot be unpacked: {error}") from error
    return file


class _Bounded(io.RawIOBase):
    """Reads from the decompressor ``inner`` of ``packed``. Raises ValueError beyond ``most`` bytes, or, if that is
    None, beyond the limit of SLACK and RATIO."""

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
    """The decompressed content of a regular file. Raises ValueError, with a message of one line, if the file cannot be
    read or is damaged."""
    try:
        with open_regular(path) as file, unpacked(file) as content:
            yield content
    except UNPACKING as error:
        raise ValueError(reason(error)) from error


def reason(error: Exception) -> str:
    """The reason of an error in one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(said).split())


def text_blocks(file: IO[bytes], longest: int = LINE) -> Iterator[bytes]:
    """The text in blocks of about BLOCK bytes, each of whole lines, without a byte order mark. A missing newline at the
    end is added. Raises ValueError for a line of more than ``longest`` bytes that spans several blocks, and for more
    than BARREN consecutive bytes of blank lines and comments (from # on)."""
    begun: list[bytes] = []  # the beginning of an unfinished line
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
                raise ValueError(f"line {lines + 1}: more than {BARREN} consecutive bytes of blank lines and comments")
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
    """Number and content, including comments, of each line that is not blank or a mere comment (from # on). Raises
    ValueError as ``text_blocks`` does, for every line of more than ``longest`` bytes."""
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
                    raise ValueError(f"line {number}: more than {BARREN} consecutive bytes of blank lines and comments")


def _says(line: bytes) -> bytes:
    """The content of a line without blanks and comment."""
    return line.partition(b"#")[0].strip()


def number(word: str) -> float | None:
    """The value of a number in ASCII, including inf and nan; None for any other word. Unlike float() it refuses 1_0 and
    non-ASCII digits."""
    return float(word) if NUMBER.fullmatch(word) else None


@dataclass
class Listing:
    """A component that is read from a file. ``path``: the file, plain or compressed (see ``unpacked``); ``~`` is the
    home folder. ``digest``: 16 hex digits of BLAKE2b of its bytes, filled in, so that a changed file gives another run
    and a moved one does not. ``content`` raises ValueError if the file cannot be read, is larger than LISTING, or does
    not have the ``digest``; ``lines`` also for a file that is not text or has a line of more than LINE bytes. ``key``:
    the name of the path in error messages."""

    key: ClassVar[str] = "path"
    path: str = field(metadata={"location": True})
    digest: str = ""

    def content(self) -> bytes:
        """The decompressed bytes."""
        try:
            packed = read_bytes(self.path, LISTING)
        except (OSError, ValueError) as error:  # ValueError for a NUL in the path
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
        """The suffix of the file name, without that of compression."""
        name = Path(self.path)
        return (name.with_suffix("") if name.suffix.lower() in PACKED else name).suffix.lower()

    def lines(self) -> Iterator[tuple[int, list[str]]]:
        """Number and words of each nonempty line, separated by blanks or commas, without comments (from # on)."""
        lines = text_lines(io.BytesIO(self.content()))
        try:
            for number, line in lines:
                yield number, line.partition(b"#")[0].decode().replace(",", " ").split()
        except UnicodeDecodeError as error:
            raise self.bad("not UTF-8 text", "a text file") from error
        except ValueError as error:
            raise self.bad(str(error), "a text file") from error

    def bad(self, wrong: str, right: str) -> ValueError:
        return ValueError(f"{self.key}={self.path}: {wrong}; give {right}")
