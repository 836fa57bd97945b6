"""Files from outside: regular ones alone, up to a stated size, read as data.

A run folder, a data file or a listing may come from a stranger. A fifo would block whoever opens it, a device never
ends, and a few bytes can stand for gigabytes. Each function here raises OSError where a path cannot be read and
ValueError where its content is not what it has to be; both say why in one line.
"""

from __future__ import annotations

import bz2
import gzip
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
    text, depth = read_text(path), 0
    try:
        for event in yaml.parse(text, Loader=SAFE):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"line {event.start_mark.line + 1}: holds an alias (*{event.anchor})")
            if depth > DEPTH:
                raise ValueError("nested too deep")
        return yaml.load(text, Loader=SAFE)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error) or "nested too deep") from error


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
