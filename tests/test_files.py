"""Files from outside: regular ones, of a bounded size, read as data; everything else in one line and at once."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from pathlib import Path

import pytest

from commexp.files import UNPACKING, open_regular, read_bytes, read_json, read_text, read_yaml, unpacked

BOMB = "a: &a [x,x]\n" + "".join(f"{n}: &{n} [*{p},*{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))


def packed_zip(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"1 2 3\n")
    return content.getvalue()


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link", "missing", "large"])
def test_what_is_no_regular_file_of_that_size_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        with open(path, "wb") as file:
            file.truncate(2**40)  # a hole: nothing is written
    with pytest.raises(OSError, match=r"regular|folder|bytes|No such"):
        read_bytes(path, 2**20)
    with pytest.raises(OSError, match=r"regular|folder|bytes|No such"):
        open_regular(path, 2**20)


def test_text_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("ä 1".encode("utf-8-sig"))
    assert read_text(path) == "ä 1"


@pytest.mark.parametrize(
    "text", [BOMB, "a: &a [*a]", "[" * 100_000, "[" * 100 + "]" * 100, "a: [", "a: !!python/object:os.system {}", "\0"]
)
def test_yaml_is_plain_data(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".+") as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, "{", "1" * 5000])
def test_json_that_is_none_is_a_value_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        read_json(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, lambda b: packed_zip("a.txt")])
def test_packed_files_are_known_by_their_first_bytes(pack: object) -> None:
    content = b"1 2 3\n"
    assert unpacked(io.BytesIO(pack(content))).read() == content  # type: ignore[operator]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_packed_files_raise_what_is_listed(pack: object) -> None:
    whole = pack(bytes(range(256)) * 40)  # type: ignore[operator]
    for damaged in (whole[: len(whole) // 2], whole[:20] + b"\xff\x00\xff" + whole[23:]):
        with pytest.raises(UNPACKING):
            unpacked(io.BytesIO(damaged)).read()


def test_a_zip_holds_one_file() -> None:
    for names in ((), ("a", "b")):
        with pytest.raises(ValueError, match="zip"):
            unpacked(io.BytesIO(packed_zip(*names)))
    with pytest.raises(ValueError, match="damaged zip"):
        unpacked(io.BytesIO(packed_zip("a")[:40]))
