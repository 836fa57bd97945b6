"""A comparison as one HTML page that opens from the disk: nothing of it comes over a network."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from commexp.report.comparison import Comparison
from commexp.report.graphs import distinct_graphs
from commexp.report.html import own_file, render
from commexp.report.page.embed import embedded
from commexp.report.page.graph import drawing
from commexp.report.page.tables import differences_table, equal_tables, made_table, methods_table, part, runs_table
from commexp.report.spread import human_seconds
from commexp.report.tables import PHASES
from commexp.run_folder import write_atomic


def write_page(compared: Comparison, path: Path) -> Path:
    from plotly.offline import get_plotlyjs  # takes a third of a second

    scripts = [Markup(get_plotlyjs()), *map(own_file, ("tables.js", "page.js", "graphs.js"))]
    graphs, more_graphs = distinct_graphs(compared.groups)
    drawings = [drawing(graph) for graph in graphs]
    page = render(
        "page.html.j2",
        scripts=scripts,
        policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        data={**embedded(compared), "graphs": drawings},
        facts=_facts(compared),
        methods=methods_table(compared),
        equal=equal_tables(compared),
        equal_notes=" ".join(compared.equal_cost.notes) if compared.equal_cost.shown else "",
        best=compared.best_settings,
        phases=compared.phases,
        looks=compared.looks,
        human_seconds=human_seconds,
        phase_names=PHASES,
        longest=max((sum(times.values()) for times in compared.phases.values()), default=0.0) or 1.0,
        graphs=drawings,
        more_graphs=more_graphs,
        differences=differences_table(compared),
        unfinished=compared.unfinished,
        runs=runs_table(compared),
        made=made_table(compared.runs),
    )
    write_atomic(path, page)
    return path


def _digest(script: str) -> str:
    """The page's policy allows the scripts with these digests alone, so none that a run's name brings along."""
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _facts(compared: Comparison) -> dict[str, str]:
    """Runs, data, models, seeds and workers, by their terms."""
    runs = compared.runs
    values = {
        "runs": [str(len(runs))],
        "methods": [str(len(compared.groups))],
        "data": [part(run, "dataset") for run in runs],
        "models": [part(run, "model") for run in runs],
        "seeds": [str(run.meta.get("seed", "-")) for run in runs],
        "workers": [str(run.meta.get("workers", "-")) for run in runs],
    }
    return {term: _listed(each) for term, each in values.items()}


def _listed(values: Sequence[str], most: int = 8) -> str:
    """The different values, numbers first and in their order; the first ``most`` of them by name."""
    different = sorted({*values} - {"-"}, key=lambda v: (not v.isdecimal(), len(v) if v.isdecimal() else 0, v))
    rest = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + rest or "-"
