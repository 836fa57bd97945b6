"""A page of what was claimed and what came out: a section per system, readable from disk, on paper, and in the dark."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commexp.report.html import render


@dataclass(frozen=True)
class Finding:
    """One claim. ``verdict``: met, not met, failed, or not runnable here; ``reason``: why there is no number."""

    id: str
    says: str
    verdict: str
    ours: str
    seeds: str
    bound: str
    published: str
    origin: str
    reason: str = ""
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """``figures``: pictures (png) with what they show; those that are not there are left out."""

    id: str
    title: str
    paper: str
    findings: Sequence[Finding]
    figures: Sequence[tuple[Path, str]] = field(default=())


def findings_page(sections: Sequence[Section], told: str = "") -> str:
    """HTML with everything in it. ``told``: a line under the title."""
    shown = [(section, _tally(section), _pictures(section)) for section in sections]
    return render("findings.html.j2", told=told, sections=shown)


def _tally(section: Section) -> str:
    counts = Counter(finding.verdict for finding in section.findings)
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def _pictures(section: Section) -> list[tuple[str, str]]:
    """The figures that are there, in base64, each with its text."""
    return [(base64.b64encode(path.read_bytes()).decode(), text) for path, text in section.figures if path.is_file()]
