"""The page of claims: a section per system, everything inside, nothing unescaped."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

from commexp.report.findings import Finding, Section, findings_page

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


class Reader(HTMLParser):
    """Which tags, with which attributes; and that each that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def finding(says: str, verdict: str = "met") -> Finding:
    return Finding("id", says, verdict, "1.5", "1 to 2", "<= 2", "<1>", "arXiv", "a & b", ["commexp a='<b>'"])


def test_a_section_for_each_system_with_all_inside(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(PIXEL)
    figures = [(tmp_path / "one.png", 'what "it" shows'), (tmp_path / "none.png", "not there")]
    text = findings_page(
        [
            Section("a", "First", "paper", [finding("It falls."), finding("It rises.", "not met")], figures),
            Section("b", "Second", "paper", []),
        ]
    )
    read = Reader(text)
    assert read.open == []
    assert [given["id"] for tag, given in read.tags if tag == "section"] == ["a", "b"]
    assert "First (1 met, 1 not met)" in text
    assert 'class="verdict notmet">not met' in text
    (picture,) = (given for tag, given in read.tags if tag == "img")
    assert picture["alt"] == 'what "it" shows'
    assert base64.b64decode(str(picture["src"]).removeprefix("data:image/png;base64,")) == PIXEL
    assert not any(tag in ("script", "link") for tag, _ in read.tags)
    assert "http" not in text


def test_nothing_is_taken_for_markup() -> None:
    text = findings_page([Section("a", "<i>T</i>", "P & Q", [finding("<script>alert(1)</script>")])], "<b>")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "commexp a=&#39;&lt;b&gt;&#39;" in text
    assert "<i>" not in text
    assert "&lt;b&gt;</p>" in text
