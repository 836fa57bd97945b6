"""What is written of a run when it has ended: its summary and its figures."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from commexp.files import printable
from commexp.report.checked import ReadRun
from commexp.report.tables import as_text, summary_blocks
from commexp.report.target import Target
from commexp.run_folder import FORMATS, Run, write_atomic

#: a run's figures, and the files that each is drawn from
FIGURES = {
    "curves": ("metrics.csv",),
    "bits": ("metrics.csv", "traffic.csv"),
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


def finish(run: Run, target: Target | None = None, figures: bool = True) -> list[str]:
    """Writes summary.md and the figures of a run that has ended, those whose files are there and newer than the
    picture; returns the blocks of the summary. A picture that cannot be drawn is named, and so is what cannot be
    written; the run is shown all the same. Raises FileNotFoundError where the run's folder is gone, ValueError for a
    folder of which a table or the summary cannot be read."""
    if not run.folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the run's folder has been removed or renamed", str(run.folder))
    shown = ReadRun(run.folder)
    try:
        blocks = summary_blocks(shown, target)
    except (OSError, ValueError, TypeError, LookupError) as error:
        why = shown.problem or f"summary.json cannot be read: {error!r}"
        raise ValueError(f"{run.folder}: {why}; rerun=true runs it again") from error
    about, text = run.folder / "summary.md", as_text(blocks)
    try:
        if not about.is_file() or about.read_bytes() != text.encode():
            write_atomic(about, text)
        if figures:
            draw(shown)
    except OSError as error:
        if error.filename is None:  # of something else than a file
            raise
        print(f"commexp: note: {error.filename}: cannot be written ({error.strerror})", file=sys.stderr, flush=True)
    return blocks


def draw(run: Run) -> list[Path]:
    """Draws those of a run's pictures that are not there or are older than their data; returns all that are there then,
    as PNG. One that cannot be drawn is named. Raises OSError where they cannot be written."""
    run = run if isinstance(run, ReadRun) else ReadRun(run.folder)
    for name in [name for name in FIGURES if _is_due(run, name)]:
        try:
            _draw(run, name, run.folder / "figures" / name)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            why = printable(f"{name} is not drawn: {type(error).__name__}: {error}")
            print(f"commexp: note: {run.name}: {why}", file=sys.stderr)
    return [path for name in FIGURES if (path := run.folder / "figures" / f"{name}.png").is_file()]


def _draw(run: Run, name: str, path: Path) -> None:
    """Each picture's own libraries are loaded for those who get it."""
    if name == "curves":
        from commexp.report.curves import draw_curves

        draw_curves({run.name: [run]}, path, title=run.name)
    elif name == "bits":
        from commexp.report.curves import draw_bits

        draw_bits({run.name: [run]}, path, title=run.name)
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
    if name == "bits" and "stationarity" not in run.metrics:
        return False
    sources = [run.folder / source for source in FIGURES[name]]
    pictures = [run.folder / "figures" / f"{name}.{kind}" for kind in FORMATS]
    if not all(source.is_file() for source in sources):
        return False
    if not all(picture.is_file() for picture in pictures):
        return True
    return min(p.stat().st_mtime for p in pictures) < max(s.stat().st_mtime for s in sources)
