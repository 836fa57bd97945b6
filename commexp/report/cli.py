"""``commexp-report RUN...``: compare finished runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from commexp.rundir import Run, write_atomic


def main() -> None:
    parser = argparse.ArgumentParser(prog="commexp-report", description="Compare finished runs: a table and curves.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders such as outputs/runs/...")
    parser.add_argument("--out", type=Path, default=Path("outputs/report"), help="where the table and figures go")
    given = parser.parse_args()
    runs = [Run(folder) for folder in given.runs]
    for run in runs:
        if not run.meta or run.metrics.empty:
            print(f"commexp: error: {run.folder}: no run with results; give folders of outputs/runs", file=sys.stderr)
            sys.exit(2)

    from commexp.report.curves import draw_curves
    from commexp.report.tables import compare_markdown, label

    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(label(run), []).append(run)
    text = compare_markdown(runs)
    write_atomic(given.out / "comparison.md", text)
    written = draw_curves(groups, given.out / "comparison")
    print(text)
    print("\n".join(str(p) for p in [given.out / "comparison.md", *written]))
