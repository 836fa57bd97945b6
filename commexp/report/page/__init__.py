"""A comparison as one HTML page that opens from the disk: nothing of it comes over a network."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from commexp.report.comparison import Comparison
from commexp.report.graphs import distinct_graphs
from commexp.report.page.bars import phase_bars
from commexp.report.page.embed import embedded
from commexp.report.page.graph import graph_figure
from commexp.report.page.tables import differences_table, made_table, methods_table, part, runs_table
from commexp.run_folder import write_atomic


def write_page(compared: Comparison, path: Path) -> Path:
    from plotly.offline import get_plotlyjs  # a third of a second that others need not wait

    data = json.dumps(embedded(compared), allow_nan=False, separators=(",", ":"))
    scripts = [get_plotlyjs(), _file("tables.js"), _file("page.js")]
    parts = {
        "policy": " ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        "style": _file("page.css"),
        "data": data.replace("<", "\\u003c"),  # no run's name can end the script
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
        "facts": _facts(compared),
        "sections": "\n".join(_sections(compared)),
    }
    write_atomic(path, Template(_file("page.html")).substitute(parts))
    return path


def _file(name: str) -> str:
    return (files("commexp.report.page") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """By which the page's policy tells its own scripts from any that a run's name might smuggle in."""
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _facts(compared: Comparison) -> str:
    """Runs, data, models, seeds and workers, in a list of terms."""
    runs = compared.runs
    told = {
        "runs": [str(len(runs))],
        "methods": [str(len(compared.groups))],
        "data": [part(run, "dataset") for run in runs],
        "models": [part(run, "model") for run in runs],
        "seeds": [str(run.meta.get("seed", "-")) for run in runs],
        "workers": [str(run.meta.get("workers", "-")) for run in runs],
    }
    terms = "".join(f"<div><dt>{key}</dt><dd>{escape(_listed(values))}</dd></div>" for key, values in told.items())
    rest = len(compared.unfinished)
    warn = f'<p class="warn"><a href="#unfinished">{rest:,} left out or not finished</a></p>' if rest else ""
    return f"<dl>{terms}</dl>{warn}"


def _listed(values: Sequence[str], most: int = 8) -> str:
    found = sorted({*values} - {"-"}, key=lambda v: (not v.isdecimal(), len(v) if v.isdecimal() else 0, v))
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "") or "-"


def _sections(compared: Comparison) -> list[str]:
    """Those that have something to show, after the curves."""
    many = len(compared.runs) > 12
    drawn, more = distinct_graphs(compared.groups)
    graphs = "".join(graph_figure(graph) for graph in drawn)
    left = "".join(
        f"<li><b>{escape(name)}</b> {escape(status)}{': ' if why else ''}{escape(why)}</li>"
        for name, status, why in compared.unfinished
    )
    wanted = [
        (
            "Methods",
            "Mean ± standard deviation over the completed runs of each method.",
            methods_table,
            compared.groups,
        ),
        ("Time of a round", "Milliseconds, mean over processes and runs.", _bars, compared.phases),
        (
            "Graphs",
            "Wider links weigh more. Point at a worker to see its links."
            + (f" {more} more {'graph is' if more == 1 else 'graphs are'} not drawn." if more else ""),
            lambda _: f'<div class="graphs">{graphs}</div>',
            graphs,
        ),
        ("What the configs differ in", "", differences_table, compared.differences[1]),
        ("Left out or not finished", "", lambda _: f'<ul id="unfinished">{left}</ul>', left),
        ("Runs", "Whatever was named has a row.", runs_table, True),
        (
            "How they were made",
            "",
            lambda c: _folded(made_table(c.runs), "commands, data, models", not many),
            compared.runs,
        ),
    ]
    return [
        f"<section><h2>{title}</h2>{f'<p class=hint>{hint}</p>' if hint else ''}\n{make(compared)}\n</section>"
        for title, hint, make, there in wanted
        if there
    ]


def _bars(compared: Comparison) -> str:
    return phase_bars(compared.phases)


def _folded(content: str, summary: str, opened: bool) -> str:
    return f"<details{' open' if opened else ''}><summary>{summary}</summary>\n{content}\n</details>"
