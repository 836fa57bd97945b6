"""Tables and figures, from run folders alone."""

from __future__ import annotations

from commexp.report.tables import summary_markdown
from commexp.rundir import Run, write_atomic


def where_to_look(run: Run) -> str:
    return f"folder:  {run.folder}\ntables:  summary.md metrics.csv traffic.csv\nfigures: figures/curves.{{png,pdf}}"


def finish(run: Run, target: float | None = None, figures: bool = True) -> str:
    """Writes summary.md and the figures of a run that has ended; returns the summary."""
    text = summary_markdown(run, target)
    write_atomic(run.folder / "summary.md", text)
    picture = run.folder / "figures" / "curves.png"
    source = run.folder / "metrics.csv"
    if figures and (not picture.is_file() or picture.stat().st_mtime < source.stat().st_mtime):
        from commexp.report.curves import draw_curves

        draw_curves({run.name: [run]}, picture.with_suffix(""), title=run.name)
    return text
