"""The run folder: atomic writes, exact numbers, one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Cli

from commexp.algorithms import SGD
from commexp.report.finish import finish
from commexp.run_folder import Run, read_json, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full_disk(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    run = Run(tmp_path)
    rows = [{"round": 1, "x": 0.1 + 0.2, "kind": "up"}, {"round": 2, "x": 1e-300, "kind": "down"}]
    run.write_rows("metrics", rows)
    assert run.rows("metrics") == rows
    assert list(run.metrics.columns) == ["round", "x", "kind"]


def test_json_holds_what_json_cannot_say_as_words(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": float("nan"), "deep": [float("inf"), 1.5]})
    assert read_json(tmp_path / "a.json") == {"loss": "nan", "deep": ["inf", 1.5]}


def test_an_unreadable_json_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text('{"status": "compl')
    assert Run(tmp_path).status is None
    assert read_json(tmp_path / "none.json") == {}


HOLD = """
import sys, time
from pathlib import Path
from commexp.run_folder import Run
Path(sys.argv[1], sys.argv[2] + " asks").touch()
with Run(Path(sys.argv[1])).locked():
    Path(sys.argv[1], sys.argv[2]).touch()
    time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[str, float], subprocess.Popen[bytes]]]:
    """A process that says that it asks for the lock, takes it, writes a file of this name, and keeps it for so many
    seconds."""
    started = []

    def start(name: str, seconds: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", HOLD, str(tmp_path), name, str(seconds)]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def appears(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_lock_keeps_others_out_and_dies_with_its_holder(
    holder: Callable[[str, float], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """And so does the status: whoever is killed runs no longer."""
    run = Run(tmp_path)
    run.set_meta(status="running")
    first = holder("first", 600.0)
    appears(tmp_path / "first")
    assert run.status == "running"
    second = holder("second", 0.0)
    appears(tmp_path / "second asks")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=0.5)
    assert not (tmp_path / "second").exists(), "two held the lock at once"
    first.kill()
    assert second.wait(timeout=30) == 0
    assert run.status == "interrupted"


def test_a_run_that_nobody_holds_is_interrupted(tmp_path: Path) -> None:
    """Whatever meta.json says, and whether or not there is a lock file."""
    run = Run(tmp_path)
    run.set_meta(status="running")
    assert run.status == "interrupted"
    with run.locked():
        assert (run.status, Run(tmp_path).status) == ("running", "running")
    assert run.status == "interrupted"
    assert json.loads((tmp_path / "meta.json").read_text())["status"] == "running"  # looking wrote nothing
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / ".lock").unlink(missing_ok=True)
    (tmp_path / "fifo").rename(tmp_path / ".lock")
    assert run.status in ("interrupted", "running")  # and does not wait for anybody


def test_who_looks_at_a_lock_does_not_disturb_who_takes_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".lock").touch()
    looking = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [looking]).start()
    with Run(tmp_path).locked():
        assert capfd.readouterr().err == ""


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """``folder`` where nobody can write, root included."""
    place = folder.with_name(f"{folder.name}-read-only")
    place.mkdir()
    mounted = ["mount", "--bind", str(folder), str(place)], ["mount", "-o", "remount,ro,bind", str(place)]
    if any(subprocess.run(command, capture_output=True, check=False).returncode for command in mounted):
        pytest.skip("this user may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


SMALL = (
    "dataset=linreg", "model=linear_regression", "dataset.dim=8", "dataset.samples=10", "workers=2", "batch_size=null",
    "eval_every=1", "launch.device=cpu",
)  # fmt: skip


def test_a_finished_run_is_shown_where_nothing_can_be_written(entry: Cli, tmp_path: Path) -> None:
    assert entry(*SMALL, "rounds=4", "outputs=o").returncode == 0
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    (folder / "summary.md").unlink()  # it would be written again
    with read_only(tmp_path / "o") as place:
        shown = entry(*SMALL, "rounds=4", f"outputs={place}")
        Run(place / "runs" / folder.name).status  # noqa: B018  (no error)
        assert entry(*SMALL, "rounds=5", f"outputs={place}").returncode == 2
    assert shown.returncode == 0, shown.stderr
    assert "completed after 4 rounds" in shown.stdout
    assert shown.stderr == (
        f"commexp: note: {place}/runs/{folder.name}/summary.md: cannot be written (Read-only file system)\n"
    )


@pytest.mark.parametrize(("kilobytes", "rounds"), [(8, 4), (64, 400)])
def test_a_full_disk_is_one_line_that_names_the_path(kilobytes: int, rounds: int, entry: Cli, tmp_path: Path) -> None:
    """At the start, and after some of the run; it is not said to be running for ever."""
    with small_disk(tmp_path / "small", kilobytes) as place:
        ended = entry(*SMALL, f"rounds={rounds}", f"outputs={place}")
        (line,) = [text for text in ended.stderr.splitlines() if "  round " not in text]
        assert ended.returncode in (1, 2)
        assert line.startswith("commexp: error: ")
        assert "No space left on device" in line
        assert str(place) in line
        assert {Run(folder).status for folder in (place / "runs").iterdir()} <= {None, "interrupted", "failed"}


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def renamed(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def exchanged(folder: Path) -> None:
    renamed(folder)
    folder.mkdir()


@pytest.mark.parametrize("how", [removed, renamed, exchanged])
@pytest.mark.parametrize("moment", [2, 7])
def test_a_folder_that_is_gone_ends_the_run(
    moment: int, how: Callable[[Path], None], entry: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle and in the last round: not completed, nothing written anew."""
    honest, there = SGD.round, tmp_path / "outputs" / "runs"

    def disturbed(self: SGD, t: int) -> None:
        if t == moment:
            how(next(there.iterdir()))
        honest(self, t)

    monkeypatch.setattr(SGD, "round", disturbed)
    ended = entry(*SMALL, "rounds=8", "save_every=1")
    (line,) = [text for text in ended.stderr.splitlines() if "  round " not in text]
    assert ended.returncode == 1
    assert line.startswith("commexp: error: FileNotFoundError: ")
    assert "outputs/runs/" in line
    left = [path for path in there.iterdir() if path.name != "elsewhere"]
    assert len(left) == (how is exchanged)
    assert not any(inside for path in left for inside in path.iterdir())


def test_a_run_is_held_until_it_has_been_shown(
    entry: Cli, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next one of several that run it again has cleared the folder by then."""
    held = []

    def looks(shown: Run, *args: object, **options: object) -> str:
        held.append(shown.is_locked())
        return finish(shown, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("commexp.report.finish.finish", looks)
    for again in ("rerun=true", "rerun=false"):
        assert entry(*SMALL, "rounds=4", again).returncode == 0
        assert not run(*SMALL, "rounds=4", again).is_locked()
    assert held == [True] * 4


@pytest.mark.drawn
def test_litter_goes_with_the_next_start_and_what_is_held_stays(run: Callable[..., Run]) -> None:
    done = run(*SMALL, "rounds=4", figures=True)
    figures, checkpoints = done.folder / "figures", done.folder / "checkpoints"
    checkpoints.mkdir()
    names = [".metrics.csv.ab12cd34", ".state-4.json.x7", "figures/tmpab12cd_4.png", "figures/.curves.pdf.0123abcd"]
    for name in (*names, "checkpoints/state-4.json", ".mine", "notes.txt", ".metrics.csv.held"):
        (done.folder / name).touch()
    (figures / "curves.pdf").unlink()  # killed between png and pdf
    with open(done.folder / ".metrics.csv.held") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run(*SMALL, "rounds=4", figures=True)
    assert not any((done.folder / name).exists() for name in (*names, "checkpoints"))
    assert all((done.folder / name).exists() for name in (".mine", "notes.txt", ".metrics.csv.held"))
    assert (figures / "curves.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o002])
def test_files_have_the_permissions_that_the_user_asked_for(umask: int, run: Callable[..., Run]) -> None:
    before = os.umask(umask)
    try:
        done = run(*SMALL, "rounds=4", "save_every=2", figures=True)
    finally:
        os.umask(before)
    modes = {str(p.relative_to(done.folder)): p.stat().st_mode & 0o777 for p in done.folder.rglob("*")}
    assert len(modes) > 8
    for name, mode in modes.items():
        assert mode == (0o777 if (done.folder / name).is_dir() else 0o666) & ~umask, name


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file" / "inside.csv"
    path.parent.touch()
    with pytest.raises(OSError, match=r"inside\.csv|file"):
        write_atomic(path, "new")
    with small_disk(tmp_path / "small", 8) as place:
        with pytest.raises(OSError, match=r"No space left on device: '.*/big\.csv'"):
            write_atomic(place / "big.csv", "x" * 100_000)
        assert list(place.iterdir()) == []


def test_scratch_folders_of_launchers_that_were_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from commexp.launch.processes import scratch_folder

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("commexp-killed00", "commexp-mynotes1", "commexp-held0000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("notes" if "notes" in name else "task.json")).touch()
    held = os.open(tmp_path / "commexp-held0000", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with scratch_folder() as one, scratch_folder() as two:
        assert one != two
        assert Path(one).is_dir(), "another launcher's folder stays while it is there"
    os.close(held)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["commexp-held0000", "commexp-mynotes1"]
