"""Tables and figures, from run folders alone."""

from __future__ import annotations

from pathlib import Path

from commexp.report.tables import summary_markdown
from commexp.rundir import Run, write_atomic

#: a run's figures, and the files that each is drawn from
FIGURES = {
    "curves": ("metrics.csv",),
    "line": ("line.csv",),
    "plane": ("plane.csv", "plane_models.csv"),
    "partition": ("partition.csv",),
    "topology": ("topology.csv",),
    "gantt": ("gantt.csv", "staleness.csv"),
}


def where_to_look(run: Run) -> str:
    drawn = ",".join(name for name in FIGURES if (run.folder / "figures" / f"{name}.png").is_file())
    figures = f"figures/{{{drawn}}}" if "," in drawn else f"figures/{drawn}"
    here = Path.cwd()
    folder = run.folder.relative_to(here) if run.folder.is_relative_to(here) else run.folder
    lines = [f"folder:  {folder}", "tables:  summary.md metrics.csv traffic.csv"]
    return "\n".join(lines + ([f"figures: {figures}.{{png,pdf}}"] if drawn else []))


def finish(run: Run, target: float | None = None, figures: bool = True) -> str:
    """Writes summary.md and the figures of a run that has ended, those whose files are there and newer than the
    picture; returns the summary."""
    text = summary_markdown(run, target)
    write_atomic(run.folder / "summary.md", text)
    due = [name for name in FIGURES if figures and _is_due(run, name)]
    for name in due:
        _draw(run, name, run.folder / "figures" / name)
    return text


def _draw(run: Run, name: str, path: Path) -> None:
    """Each picture's own libraries are loaded for those who get it."""
    if name == "curves":
        from commexp.report.curves import draw_curves

        draw_curves({run.name: [run]}, path, title=run.name)
    elif name == "partition":
        from commexp.report.partition import draw_partition

        draw_partition(run, path)
    elif name == "topology":
        from commexp.report.topology import draw_topology

        draw_topology(run, path)
    elif name == "gantt":
        from commexp.report.gantt import draw_gantt

        draw_gantt(run, path)
    else:
        from commexp.report.landscape import draw_line, draw_plane

        {"line": draw_line, "plane": draw_plane}[name](run, path)


def _is_due(run: Run, name: str) -> bool:
    sources = [run.folder / source for source in FIGURES[name]]
    picture = run.folder / "figures" / f"{name}.png"
    if not all(source.is_file() for source in sources):
        return False
    return not picture.is_file() or picture.stat().st_mtime < max(s.stat().st_mtime for s in sources)
