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
import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import yaml

DOCUMENT = 2**24  # bytes of a JSON or YAML file: those of a run hold some kilobytes
TABLE = 2**30  # bytes of a CSV file: 1,000,000 rows take about 300 MB
VALUES = 100_000  # of a YAML file: those of a run hold a hundred, and eight for each worker with its own link
COLUMNS = 1000  # of a CSV file: those of a run have up to thirty
LONG = 2000  # letters of one text that are shown
DEPTH = 64  # lists and mappings within each other; a config has six
#: what reading from ``unpacked`` raises where the packed file is damaged or cut
UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it has been built


def open_regular(path: str | Path, limit: int | None = None) -> IO[bytes]:
    """The file, open for reading. Never blocks. Raises OSError for what is no regular file, and for one of more than
    ``limit`` bytes."""
    file = Path(path).expanduser()
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
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


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """What an open file holds, unpacked as it is read where its first bytes are those of gzip, bzip2, xz or zip.

    A zip has to hold one file. Whoever reads on sets the limit: a packed file can be a thousand times as large as it
    looks. Reading a damaged one raises one of ``UNPACKING``. Raises ValueError for a zip that is none, or that holds
    several files."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ValueError(f"a damaged zip: {error}") from error
        names = [info for info in archive.infolist() if not info.is_dir()]
        if len(names) != 1:
            raise ValueError(f"a zip of {len(names)} files, of which one has to be chosen; unpack it")
        return archive.open(names[0])
    return file
