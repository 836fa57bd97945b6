"""A page of what was claimed and what came out: a section per system, readable from disk, on paper, and in the dark."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path


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


STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5c646c; --line: #d9dde1; --page: #ffffff; --box: #f5f6f8;
  --good: #00674a; --bad: #a33b00; --none: #5c646c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #9aa3ab; --line: #363c42; --page: #15181b;
  --box: #1f2327; --good: #4cc9a0; --bad: #f0955c; --none: #9aa3ab; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; color: var(--ink); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.3rem; margin: 3rem 0 0; } p { margin: .4rem 0; }
a { color: inherit; } nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.finding { border-top: 1px solid var(--line); padding: .9rem 0; display: grid; gap: .2rem 1.5rem;
  grid-template-columns: minmax(0, 1fr) 17rem; break-inside: avoid; }
.met { color: var(--good); } .notmet, .failed { color: var(--bad); } .notrunnablehere { color: var(--none); }
.verdict { font-weight: 600; }
dl { margin: 0; display: grid; grid-template-columns: 6rem 1fr; align-content: start; font-size: .95rem; }
dt { color: var(--soft); } dd { margin: 0; font-variant-numeric: tabular-nums; }
pre { grid-column: 1 / -1; margin: .3rem 0 0; padding: .5rem .7rem; background: var(--box); border-radius: 4px;
  font: .78rem/1.5 ui-monospace, monospace; white-space: pre-wrap; }
figure { margin: 1.5rem 0; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; }
@media (max-width: 45rem) { .finding { grid-template-columns: minmax(0, 1fr); } }
@media print { body { max-width: none; padding: 0; font-size: .85rem; } nav { display: none; }
  h2, h2 + p { break-after: avoid; } }
"""


def findings_page(sections: Sequence[Section], told: str = "") -> str:
    """HTML with everything in it. ``told``: a line under the title."""
    links = "".join(f'<a href="#{escape(s.id)}">{escape(s.title)} ({_tally(s)})</a>' for s in sections)
    body = "".join(map(_section, sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>commexp: claims and findings</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Claims and findings</h1>\n<p class="soft">{escape(told)}</p>\n<nav>{links}</nav>\n{body}'
        "</body>\n</html>\n"
    )


def _tally(section: Section) -> str:
    counts = Counter(finding.verdict for finding in section.findings)
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def _section(section: Section) -> str:
    figures = "".join(_figure(path, text) for path, text in section.figures if path.is_file())
    return (
        f'<section id="{escape(section.id)}">\n<h2>{escape(section.title)}</h2>\n<p class="soft">'
        f"{escape(section.paper)}</p>\n{figures}{''.join(map(_finding, section.findings))}</section>\n"
    )


def _finding(f: Finding) -> str:
    numbers = {"here": f.ours, "seeds": f.seeds, "must be": f.bound, "published": f.published}
    listed = "".join(f"<dt>{key}</dt><dd>{escape(text)}</dd>" for key, text in numbers.items() if text not in ("", "-"))
    kind = f.verdict.replace(" ", "")
    reason = f'<p class="soft">{escape(f.reason)}</p>' if f.reason else ""
    return (
        f'<div class="finding" id="{escape(f.id)}"><div><p>{escape(f.says)}</p><p class="soft">{escape(f.origin)}</p>'
        f'{reason}</div>\n<dl><dt>verdict</dt><dd class="verdict {kind}">{escape(f.verdict)}</dd>'
        f"{listed}</dl>\n<pre>{escape(chr(10).join(f.commands))}</pre></div>\n"
    )


def _figure(path: Path, text: str) -> str:
    picture = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{escape(text)}</figcaption></figure>\n"
    )
