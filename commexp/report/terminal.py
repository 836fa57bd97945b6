"""What a terminal shows: tables that fit its width, folded sentences, and letters that it can write."""

from __future__ import annotations

import codecs
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO
from unicodedata import combining, normalize

NARROWEST = 40  # columns of a terminal for which anything is laid out
SPELLING = "commexp.spelling"  # the name by which Python finds _spelling
ROWS = 100  # of a table that a file has in full
SHORT = 20  # letters of a cell that is not folded where that can be avoided
#: how far cells are folded, the first way that suffices: short ones and short numbers are not, words of so many letters
WAYS = ((SHORT, SHORT, 36), (0, SHORT, 36), (0, 0, 36), (0, 0, 12))
SPACE = "\N{NO-BREAK SPACE}"  # at which textwrap does not fold
SPELLED = {"±": "+-", "≈": "~", "×": "x", "÷": "/", "µ": "u", "≤": "<=", "≥": ">=", "→": "->", "…": "..."}  # noqa: RUF001
SPELLED |= dict.fromkeys("‐‑‒–—−", "-") | dict.fromkeys("‘’", "'") | dict.fromkeys("“”", '"')  # noqa: RUF001


class MarkdownTable(str):
    """A table in Markdown. ``heads``, ``rows``: its cells, as they are written. ``minor``: heads of columns that a
    narrow terminal leaves out, the least important first."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    minor: Sequence[str]

    @classmethod
    def of(cls, heads: Sequence[str], rows: Sequence[Sequence[str]], minor: Sequence[str] = ()) -> MarkdownTable:
        widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
        made = cls(_drawn([heads], rows, widths))
        made.heads, made.rows, made.minor = heads, rows, minor
        return made

    def fitted(self, width: int) -> tuple[str, list[str]]:
        """The table in at most ``width`` columns, and the heads of the columns that are left out. Long texts are
        folded; short ones, and then numbers, only where all minor columns are left out and that does not suffice."""
        kept = list(range(len(self.heads)))
        least = [_least(column, *WAYS[0]) for column in self._columns(kept)]
        for name in self.minor:
            if _total(least[i] for i in kept) <= width:
                break
            kept = [i for i in kept if self.heads[i] != name]
        columns = self._columns(kept)
        for way in WAYS:
            least = [_least(column, *way) for column in columns]
            if _total(least) <= width:
                break
        widths = [max(map(len, column)) for column in columns]
        while _total(widths) > width and widths != least:
            widest = max((i for i in range(len(kept)) if widths[i] > least[i]), key=lambda i: widths[i])
            widths[widest] -= 1
        top, *rows = [_folded(cells, widths) for cells in zip(*columns, strict=True)]
        table = _drawn(top, [line for row in rows for line in row], widths)
        return table, [head for i, head in enumerate(self.heads) if i not in kept]

    def _columns(self, kept: Sequence[int]) -> list[list[str]]:
        return [[self.heads[i], *(row[i] for row in self.rows)] for i in kept]


def in_terminal(blocks: Sequence[str], where: object = "") -> str:
    """Paragraphs and tables, as the terminal of the standard output shows them, or 80 columns if there is none.
    ``where``: the file that has all columns of tables with minor ones."""
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    return "\n\n".join(_shown(block, width, where) for block in blocks)


def _shown(block: str, width: int, where: object) -> str:
    if not isinstance(block, MarkdownTable):
        return folded(writable(block, sys.stdout), width)
    cells = (block.heads, block.minor, *(block.rows[:ROWS] if where else block.rows))
    heads, minor, *rows = [[writable(cell, sys.stdout) for cell in row] for row in cells]
    text, hidden = MarkdownTable.of(heads, rows, minor).fitted(width)
    hidden += [f"{len(block.rows) - ROWS:,} more rows"] if where and len(block.rows) > ROWS else []
    return "\n".join([text, *([folded(f"(not shown: {', '.join(hidden)}; see {where})", width)] if hidden else [])])


def folded(text: str, width: int) -> str:
    """The text with its long lines folded between words; what begins with a bullet goes on below the text of it."""
    lines = [(line, "  " if line.startswith(("* ", "- ")) else "") for line in text.split("\n")]
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for line, indent in lines
    )


def writable(text: str, stream: TextIO) -> str:
    """The text in letters that the stream can encode: ± becomes +-, where need be, and a letter loses its accent."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_spelled(letter, encoding) for letter in text)
    return text


def _spelled(letter: str, encoding: str) -> str:
    plain = SPELLED.get(letter) or "".join(c for c in normalize("NFKD", letter) if not combining(c))
    for text in (letter, plain):
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            continue
        return text
    return "?"


def _spelling(error: UnicodeError) -> tuple[bytes, int]:
    """What Python's encoders call for letters that they cannot write. Bytes of a file's name that Python could not
    decode are written as they were."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = b""
    for letter in error.object[error.start : error.end]:
        if "\udc80" <= letter <= "\udcff":
            written += bytes([ord(letter) - 0xDC00])
        else:
            written += _spelled(letter, error.encoding).encode(error.encoding)
    return written, error.end


def write_any_letter(stream: TextIO) -> None:
    """Lets a stream that is not in UTF-8, as with LANG=C, write every text, as ``writable`` spells it."""
    if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
        codecs.register_error(SPELLING, _spelling)
        stream.reconfigure(errors=SPELLING)


def _drawn(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([*map(line, heads), line(["-" * width for width in widths]), *map(line, rows)])


def _total(widths: Iterable[int]) -> int:
    return sum(width + 3 for width in widths) + 1


def _least(column: Sequence[str], text: int, number: int, word: int) -> int:
    """The least width of a column, head first, in which no cell of up to ``text`` letters, no number of up to
    ``number`` letters and no word of up to ``word`` letters is folded."""
    words = [min(word, len(part)) for cell in column for part in _glued(cell).split(" ")]
    whole = [len(c) for c in column[1:] if len(c) <= (number if c.lstrip("~-")[:1].isdigit() else text)]
    return max(1, *words, *whole)


def _glued(text: str) -> str:
    """A number and its unit, and ± and what follows, as one word."""
    return re.sub(r"(?<=\d) (?=[kMGTm]?(B|bit|s|min|h)\b)|(?<=±) |(?<=\+-) ", SPACE, text)


def _folded(cells: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """The lines of a row."""
    parts = [textwrap.wrap(_glued(cell), width) or [""] for cell, width in zip(cells, widths, strict=True)]
    lines = [[part[i] if i < len(part) else "" for part in parts] for i in range(max(map(len, parts)))]
    return [[cell.replace(SPACE, " ") for cell in line] for line in lines]
