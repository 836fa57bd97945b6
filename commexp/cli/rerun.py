"""``commexp rerun BUNDLE``: repeats the runs of a bundle here, and compares the numbers."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from commexp.cli.parser import Parser
from commexp.config.messages import LaunchError, UserError
from commexp.files import number, printable
from commexp.launch.streams import complain
from commexp.report.bundle import unpack
from commexp.report.difference import (
    CLOSE,
    EQUAL,
    TOLERANCE,
    difference_table,
    differences,
    other_versions,
)
from commexp.run_folder import Run


def main(words: Sequence[str]) -> None:
    """Exit status: 0 if all numbers are equal within the tolerance, 1 if not, 2 for what cannot be repeated."""
    parser = Parser(prog="commexp rerun", description="Repeat the runs of a bundle and compare their numbers.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="what commexp-runs pack has written")
    parser.add_argument(
        "places", nargs="*", default=[], metavar="KEY=VALUE", help="where files lie, such as dataset.root=FOLDER"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/reruns"), help="where the repeated runs go")
    parser.add_argument(
        "--tolerance", default=str(TOLERANCE), help=f"largest relative difference that counts as equal; {TOLERANCE:g}"
    )
    try:
        given = parser.parse_args(words)
        tolerance = number(given.tolerance)
        if tolerance is None or not 0 <= tolerance < 1:
            raise UserError(f"--tolerance={given.tolerance}: no share; give one such as 1e-5, or 0 for the same bits")
        sys.exit(repeat(given.bundle, given.places, given.out, tolerance))
    except (UserError, LaunchError) as error:
        complain(printable(str(error)))
        sys.exit(2 if isinstance(error, UserError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def repeat(bundle: Path, places: Sequence[str], out: Path, tolerance: float) -> int:
    """Raises UserError, before the first run, if one of the runs cannot be repeated."""
    from commexp.launch.launch import keep_memory, launch
    from commexp.report.finish import finish

    with tempfile.TemporaryDirectory(prefix="commexp-bundle-") as scratch:
        folder = Path(scratch) / "bundle"
        unpacked(bundle, folder)
        packed = [Run(path) for path in sorted((folder / "runs").iterdir())]
        plans = [plan_of(run, places, out) for run in packed]
        keep_memory()
        alike = True
        for before, plan in zip(packed, plans, strict=True):
            print(f"repeating {printable(before.name)}", flush=True)
            with ExitStack() as hold:
                now = launch(plan, hold)
                if now.status == "interrupted":
                    raise KeyboardInterrupt
                finish(now, figures=False)
                alike = compared(before, now, tolerance) and alike
    return 0 if alike else 1


def unpacked(bundle: Path, folder: Path) -> dict[str, Any]:
    """What ``unpack`` returns; raises UserError for what it raises."""
    try:
        return unpack(bundle, folder)
    except ValueError as error:
        raise UserError(f"FILE={bundle}: {error}; give a file that commexp-runs pack has written") from error
    except OSError as error:
        where = f"--out={folder}" if error.filename == str(folder) else f"FILE={bundle}"
        raise UserError(f"{where}: {error.strerror or error}; give another") from error


def plan_of(run: Run, places: Sequence[str], out: Path) -> Any:
    """The plan that repeats the run as far as this machine can: in one process, with as many threads. Raises UserError,
    which names the run."""
    from commexp.config.foreign import foreign_plan

    try:
        if run.on_wall_clock:
            raise UserError("real processes that do not wait for each other; no two such runs are equal")
        try:
            config = run.config
        except (OSError, ValueError) as error:
            raise UserError(f"config.yaml: {error}") from error
        meta = run.meta
        threads = meta.get("threads")
        launch: dict[str, Any] = {"device": "cpu" if meta.get("device") == "cpu" else "auto"}
        if isinstance(threads, int) and threads > 0:
            launch["threads"] = min(threads, os.cpu_count() or 1)
        return foreign_plan(config, places, {"launch": launch, "outputs": str(out), "rerun": True})
    except UserError as error:
        raise UserError(f"RUN={run.name}: cannot be repeated: {error}") from error


def compared(before: Run, now: Run, tolerance: float) -> bool:
    """Prints the table; whether all numbers are equal within the tolerance, and both have ended alike."""
    try:
        found = differences(before, now, tolerance)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"RUN={before.name}: cannot be compared: {error}; give another bundle") from error
    print(printable(f"{now.name}: {before.recorded} when it was packed, {now.recorded} here; in {now.folder}"))
    if now.name != before.name:
        print(printable(f"note: {before.name} when it was packed: commexp has changed since, or its config was edited"))
    versions = other_versions(before.meta, now.meta)
    print("\n".join(["", difference_table(found), "", *map(printable, versions or ["the same versions and machine"])]))
    alike = before.recorded == now.recorded and all(each.verdict in (EQUAL, CLOSE) for each in found)
    same = all(each.verdict == EQUAL for each in found)
    verdict = (
        "equal, bit for bit"
        if same
        else f"equal within {tolerance:g}"
        if alike
        else f"different by more than {tolerance:g}"
    )
    print(f"\n{printable(now.name)}: {verdict}\n")
    return alike
