"""``commexp-runs``: lists, finds, shows, follows, removes, packs and unpacks runs."""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from commexp import __version__, files
from commexp.api import chosen, one_of
from commexp.cli.parser import Parser
from commexp.cli.rerun import unpacked
from commexp.config.messages import UserError
from commexp.files import printable
from commexp.launch.streams import complain, lenient_streams
from commexp.metrics import METRICS, human_bytes, metric
from commexp.report.bundle import pack
from commexp.report.catalogue import Listed, Runs, SweepFolder, found, human_age, main_settings
from commexp.run_folder import LOCK, READING, Run

GAP = "  "
LEAST = 12  # characters of a column that is cut, or it is left out
LAST = 10  # rows of a run that has ended, or has begun already, that tail shows
POLL = 0.3  # seconds
QUERY = "algo=topk, 'compress.k<0.1', seed=0,1, status=completed, 'test_accuracy>=0.9'; or a run's name"
HEADS = ["run", "status", "result", "settings", "age", "size"]  # the most important first
VERSIONS = ("commexp", "git_commit", "python", "torch", "machine", "device", "threads")


@lenient_streams()
def main() -> None:
    try:
        given = parser().parse_args()
        sys.exit(given.call(given))
    except UserError as error:
        complain(printable(str(error)))
        sys.exit(2)
    except OSError as error:
        complain(printable(f"{error.filename}: {error.strerror or error}"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    whole = Parser(prog="commexp-runs", description="The runs and sweeps at hand.")
    whole.add_argument("--version", action="version", version=f"commexp {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, call: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        one.set_defaults(call=call)
        one.add_argument(
            "--root", type=Path, default=Path("outputs"), help="folder with the runs; outputs if not given"
        )
        return one

    for name, about in (("list", "list all runs and sweeps, oldest first"), ("find", "list the runs that fit")):
        one = command(name, list_runs, about)
        one.add_argument("--csv", action="store_true", help="CSV with all keys that differ, and the whole summary")
        if name == "find":
            one.add_argument("query", nargs="+", metavar="QUERY", help=QUERY)
    one = command("show", show, "show one run: status, command, versions, settings, results")
    one.add_argument("run", metavar="RUN", help="a folder, a run's name or its beginning, its 8 hex digits, or a query")
    one = command("tail", tail, "follow the rows of a run's metrics.csv until it ends")
    one.add_argument("run", nargs="?", metavar="RUN", help="as for show; the run that began last if not given")
    one = command("rm", remove, "remove runs, after a question")
    one.add_argument("query", nargs="+", metavar="QUERY", help=QUERY)
    one.add_argument("--yes", action="store_true", help="do not ask")
    one = command("pack", pack_runs, "pack runs and sweeps into one archive for others")
    one.add_argument("runs", nargs="+", metavar="RUN", help="as for show, or a sweep with all its runs")
    one.add_argument("-o", dest="out", type=Path, metavar="FILE", help="the archive; <name>.zip if not given")
    one = command("unpack", unpack_runs, "check an archive and unpack it; commexp rerun FILE repeats its runs")
    one.add_argument("file", type=Path, metavar="FILE", help="what pack has written")
    one.add_argument("--out", type=Path, help="a new folder; unpacked/<name of the archive> in --root if not given")
    return whole


def list_runs(given: argparse.Namespace) -> int:
    queries = getattr(given, "query", [])
    runs = chosen(queries, given.root)
    if given.csv:
        print(Runs(runs).frame.to_csv(index=False), end="")
        return 0
    sweeps = [] if queries else [SweepFolder(folder) for folder in found(given.root)[1]]
    if not runs and not sweeps:
        raise UserError(f"--root={given.root}: no run {'fits' if queries else 'there'}; give another")
    print(table(HEADS, list(rows_of(runs)), cut="settings"))
    parts = [f"{counted(len(runs), 'run')}, {human_bytes(sum(run.size for run in runs))}"]
    if sweeps:
        sweeps.sort(key=lambda sweep: sweep.moment)
        ages = [human_age(time.time() - sweep.moment) for sweep in sweeps]
        cells = [
            [printable(sweep.name), sweep.statuses, age, human_bytes(sweep.size)]
            for sweep, age in zip(sweeps, ages, strict=True)
        ]
        print("\n" + table(["sweep", "runs", "age", "size"], cells, cut="sweep"))
        parts.append(f"{counted(len(sweeps), 'sweep')}, {human_bytes(sum(sweep.size for sweep in sweeps))}")
    print("\n" + "; ".join(parts))
    return 0


def rows_of(runs: Sequence[Listed]) -> Iterator[list[str]]:
    """A row of HEADS for each run."""
    for run, settings in zip(runs, main_settings([run.settings for run in runs]), strict=True):
        result = "-" if run.headline is None else f"{run.headline[0].short} {run.headline[0].show(run.headline[1])}"
        age = human_age(time.time() - run.moment) if run.moment else "-"
        yield [printable(run.name), status_of(run), printable(result), settings, age, human_bytes(run.size)]


def status_of(run: Listed) -> str:
    """Its status, and of a living one how far it is."""
    share = run.progress if run.status == "running" else 1.0
    return printable(str(run.status or "unknown")) + (f" {share:.0%}" if share < 1 else "")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], cut: str, width: int | None = None) -> str:
    """Columns side by side, in ``width`` characters, by default those of the terminal, if there is one: then the column
    ``cut`` is shortened, and the last ones are left out, as far as needed."""
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    least = [min(size, LEAST) if head == cut else size for head, size in zip(heads, widths, strict=True)]
    count = next((n for n in range(len(heads), 1, -1) if sum(least[:n]) + len(GAP) * (n - 1) <= width), 1)
    if cut in heads[:count]:
        place = heads.index(cut)
        rest = sum(widths[:count]) - widths[place] + len(GAP) * (count - 1)
        widths[place] = max(LEAST, min(widths[place], width - rest))

    def line(cells: Sequence[str]) -> str:
        short = [c if len(c) <= w else c[: w - 2] + ".." for c, w in zip(cells, widths[:count], strict=False)]
        return GAP.join(c.ljust(w) for c, w in zip(short, widths, strict=False)).rstrip()

    return "\n".join(map(line, [heads, *rows]))


def show(given: argparse.Namespace) -> int:
    run = one_of(given.run, given.root)
    meta = run.meta
    versions = " ".join(f"{key}={meta[key]}" for key in VERSIONS if meta.get(key) is not None)
    about = {
        "status": status_of(run),
        "error": meta.get("error"),
        "folder": str(run.folder),
        "size": human_bytes(run.size),
        "started": meta.get("started"),
        "ended": meta.get("ended"),
        "command": meta.get("command"),
        "overrides": " ".join(run.overrides),
        "settings": main_settings([run.settings])[0],
        "versions": versions,
    }
    print(printable(run.name))
    print("\n".join(f"{key + ':':11} {printable(str(value))}" for key, value in about.items() if value))
    with suppress(OSError, ValueError):
        text = files.read_text(run.folder / "summary.md")
        print("\n" + "\n".join(map(printable, text.splitlines())))
    return 0


def tail(given: argparse.Namespace) -> int:
    """Rows come as the run writes them: with each checkpoint, and at its end."""
    if given.run:
        run = one_of(given.run, given.root)
    else:
        runs = chosen([], given.root)
        if not runs:
            raise UserError(f"--root={given.root}: no run there; give another folder")
        run = max(runs, key=lambda each: (each.status == "running", each.moment))
    print(printable(f"{run.name}: {status_of(run)}"), flush=True)
    columns: list[str] = []
    seen, known = 0, None
    while True:
        ended = Run(run.folder).status != "running"  # asked before the rows are read, so that none is missed
        if (now := _version(run.folder / "metrics.csv")) != known:
            known, rows = now, _rows(run)
            if rows and not columns:
                columns = tail_columns(rows[0])
                print(tail_line(columns, {name: heading(name) for name in columns}), flush=True)
                seen = max(0, len(rows) - LAST)
            for row in rows[seen:]:
                print(tail_line(columns, {name: metric(name).show(row.get(name)) for name in columns}), flush=True)
            seen = max(seen, len(rows))
        if ended:
            print(printable(f"{run.name}: {Run(run.folder).status}"))
            return 0
        time.sleep(POLL)


def _version(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def _rows(run: Run) -> list[dict[str, Any]]:
    try:
        return run.rows("metrics")
    except (OSError, ValueError):
        return []


def tail_columns(row: Mapping[str, Any]) -> list[str]:
    """The round, the metrics that the line of progress has, and the costs."""
    return ["round", *(m.name for m in METRICS.values() if m.progress and m.name in row), "bytes_sent", "sim_seconds"]


def tail_line(columns: Sequence[str], cells: Mapping[str, str]) -> str:
    return GAP.join(printable(cells[name]).rjust(max(9, len(heading(name)))) for name in columns)


def heading(name: str) -> str:
    unit = metric(name).unit
    return metric(name).short + (f" ({unit})" if unit else "")


def remove(given: argparse.Namespace) -> int:
    runs = chosen(given.query, given.root)
    if not runs:
        raise UserError(
            f"{' '.join(given.query)}: no run in {given.root} fits; commexp-runs list shows those there are"
        )
    top = os.path.realpath(given.root)
    for run in runs:
        if os.path.islink(run.folder) or not f"{os.path.realpath(run.folder)}/".startswith(f"{top}/"):
            raise UserError(
                f"RUN={run.folder}: is a link, or lies outside {given.root}; give --root with its own folder"
            )
        if run.is_locked():
            raise UserError(f"RUN={run.name}: is being run; end it first, or leave it out with 'status!=running'")
    print(table(HEADS, list(rows_of(runs)), cut="settings"))
    what = f"{counted(len(runs), 'run')}, {human_bytes(sum(run.size for run in runs))}"
    if not given.yes and not agreed(f"remove {what}? [y/N] "):
        print("nothing removed")
        return 1
    for run in runs:
        erase(run)
    print(f"{what} removed")
    return 0


def agreed(question: str) -> bool:
    print(question, end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def erase(run: Run) -> None:
    """Removes the folder, out of sight first, so that nobody finds half a run. Links in it are removed, not followed.
    Raises UserError if a process has begun to run it."""
    with unshared(run):
        hidden = run.folder.with_name(f".{run.name}.{secrets.token_hex(4)}")
        os.rename(run.folder, hidden)
    shutil.rmtree(hidden)


@contextmanager
def unshared(run: Run) -> Iterator[None]:
    """Holds the run's lock, if it has one. Raises UserError if another process does."""
    try:
        handle = os.open(run.folder / LOCK, READING | os.O_NOFOLLOW)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"RUN={run.name}: is being run; end it first") from error
        yield
    finally:
        os.close(handle)


def pack_runs(given: argparse.Namespace) -> int:
    runs = chosen(given.runs, given.root)
    known = [
        *found(given.root)[1],
        *(path for word in given.runs if os.path.isdir(word) for path in found(Path(word))[1]),
    ]
    wanted = [word.rstrip("/") for word in given.runs]
    sweeps = list({os.path.realpath(s): s for s in known if s.name in wanted or str(s) in wanted}.values())
    if not runs:
        raise UserError(f"{' '.join(given.runs)}: no run in {given.root} fits; commexp-runs list shows those there are")
    for run in runs:
        if run.status == "running":
            raise UserError(f"RUN={run.name}: is being run; wait for its end, or leave it out")
    out = given.out or Path(f"{sweeps[0].name if sweeps else runs[0].name}.zip")
    if out.exists():
        raise UserError(f"-o {out}: is there already; give another name")
    try:
        size = pack([run.folder for run in runs], sweeps, out)
    except ValueError as error:
        raise UserError(f"RUN={error}") from error
    dirty = [run.name for run in runs if str(run.meta.get("git_commit")).endswith("-dirty")]
    if dirty:
        note = (
            f"{counted(len(dirty), 'run')} made with a changed source tree, such as {dirty[0]}; others cannot have it"
        )
        print(f"commexp: note: {note}", file=sys.stderr)
    print(f"{out}: {counted(len(runs), 'run')}, {counted(len(sweeps), 'sweep')}, {human_bytes(size)}")
    return 0


def unpack_runs(given: argparse.Namespace) -> int:
    out = given.out or given.root / "unpacked" / given.file.stem
    manifest = unpacked(given.file, out)
    runs = counted(len(manifest["runs"]), "run")
    print(f"{out}: {runs}, {counted(len(manifest['files']), 'file')}, every SHA-256 as it was packed")
    print(f"commexp-runs list --root {shlex.quote(str(out))}")
    return 0


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
