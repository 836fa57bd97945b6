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
        if not all((run.folder / name).is_file() for name in ("meta.json", "config.yaml", "metrics.csv")):
            print(
                f"commexp: error: RUN={run.folder}: no run with results; give folders such as outputs/runs/...",
                file=sys.stderr,
            )
            sys.exit(2)

    from commexp.report.curves import draw_curves
    from commexp.report.phases import draw_phases
    from commexp.report.tables import compare_markdown, labels

    groups: dict[str, list[Run]] = {}
    for name, run in zip(labels(runs), runs, strict=True):
        groups.setdefault(name, []).append(run)
    text = compare_markdown(runs)
    write_atomic(given.out / "comparison.md", text)
    written = draw_curves(groups, given.out / "comparison") + draw_phases(groups, given.out / "phases")
    print(text)
    print("\n".join(str(p) for p in [given.out / "comparison.md", *written]))
