"""Others on the same machine: what lies in the current folder is not run, who does not know the secret is not heard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment
from launch.beside import Start, beside
from launch.processes import free_port, ranks, wait_for
from launch.test_failures import LONG, SMALL, TWO, alive, meta, saved, until, workers_of

from commexp.launch.processes import SAFE, START

EVIL = "import pathlib; pathlib.Path(__file__).with_name('PWNED').touch()"
MINE = """
from dataclasses import dataclass
from commexp.compressors import TopK
from commexp.report import finish

finish._draw = lambda *_: None  # which takes longer than the run

@dataclass
class Mine(TopK):
    pass
"""


def spread(folder: Path) -> None:
    """Modules that take the place of others wherever the current folder comes first."""
    for name in ("omegaconf.py", "torch.py", "json.py", "commexp/__init__.py", "commexp/launch/__init__.py"):
        path = folder / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(EVIL)


@beside
def test_a_run_among_strangers(started: Start, tmp_path: Path) -> None:
    """In a folder of other people's modules, with garbage on every port: modules of one's own are found, the run
    goes on, and its secret is on no command line and in no file."""
    spread(tmp_path)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "mine.py").write_text(MINE)
    words = [str(Path(sys.executable).with_name("commexp")), *SMALL, "algo=async_ps", "compress=topk", "workers=1"]
    words += ["compress._target_=mine.Mine", "compress.k=4", "compress.feedback.warmup=300", "rounds=1000000"]
    words += ["launch=torchrun", "launch.nproc=2", "save_every=5"]
    env = {**environment(), "PYTHONPATH": str(tmp_path / "modules")}
    launcher = subprocess.Popen(
        words, cwd=tmp_path / "here", env=env, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: saved(tmp_path / "here"), seconds=120)
        pids = [launcher.pid, *workers_of(launcher.pid)]
        ports = {int(a.rpartition(":")[2]) for pid in pids for a in listening_at(pid)}
        lines = [socket.create_connection(("127.0.0.1", port), 5) for port in ports]
        for line in lines:
            line.sendall(os.urandom(1000))
        variables = Path(f"/proc/{pids[1]}/environ").read_bytes().split(b"\0")
        secret = next(v for v in variables if v.startswith(b"COMMEXP_SECRET=")).partition(b"=")[2]
        meeting = next(v for v in variables if v.startswith(b"COMMEXP_MEETING=")).partition(b"=")[2]
        assert len(secret) == 64
        assert os.stat(os.path.dirname(meeting)).st_mode & 0o077 == 0
        assert all(secret not in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
        before = saved(tmp_path / "here")
        until(lambda: saved(tmp_path / "here") > before + 20)
        launcher.send_signal(signal.SIGINT)
        _, err = launcher.communicate(timeout=60)
    finally:
        launcher.kill()
    assert launcher.returncode == 130, err
    assert "note" not in err
    assert "warn" not in err
    assert not list(tmp_path.rglob("PWNED"))
    (run,) = tmp_path.glob("here/outputs/runs/*")
    assert all(secret not in path.read_bytes() for path in run.rglob("*") if path.is_file())
    for line in lines:
        line.close()


def listening_at(pid: int) -> list[str]:
    """As ``listening``, with ports."""
    table = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            table[f"socket:[{words[9]}]"] = f"127.0.0.1:{int(words[1].split(':')[1], 16)}"
    handles = [os.readlink(h) for h in Path(f"/proc/{pid}/fd").iterdir() if h.exists() or h.is_symlink()]
    return [table[h] for h in handles if h in table]


@pytest.mark.parametrize("options", [SAFE, ()], ids=["with -P", "as on 3.10"])
def test_processes_import_nothing_from_the_current_folder(tmp_path: Path, options: tuple[str, ...]) -> None:
    spread(tmp_path)
    what = START.replace("from commexp.cli.worker import main; main()", "import json; print(json.dumps(sys.path))")
    assert what != START
    command = [sys.executable, *options, "-c", what]
    done = subprocess.run(command, cwd=tmp_path / "here", env=environment(), capture_output=True, text=True, check=True)
    assert str(tmp_path) not in done.stdout
    assert not list(tmp_path.rglob("PWNED"))


@beside
def test_a_process_that_does_not_know_the_secret(started: Start, tmp_path: Path) -> None:
    """Of those that the user starts: here the first does not, and says so."""
    words = ["-m", "commexp", *SMALL, "compress.k=4", "rounds=2", "launch.timeout=20"]
    port = str(free_port())
    (first,) = ranks(2, words, tmp_path, only=[0], MASTER_PORT=port)
    (second,) = ranks(2, words, tmp_path, only=[1], COMMEXP_SECRET="known", MASTER_PORT=port)
    said = wait_for([first, second], 90)
    note, error = said[0][2].splitlines()
    assert note.startswith("commexp: note: COMMEXP_SECRET is not set: whoever reaches the ports of this run can join")
    assert error == "commexp: error: rank 0: who says that it is rank 1 does not know this run's COMMEXP_SECRET"
    assert said[1][2].splitlines() == [error.replace("1", "2").replace("0", "1").replace("2", "0")]
    assert not (tmp_path / "outputs").exists()


@beside
def test_a_second_interrupt_ends_all_at_once(started: Start, tmp_path: Path) -> None:
    """Even a process that cannot move."""
    (tmp_path / "scratch").mkdir()
    launcher = started(*LONG, *TWO, TMPDIR=str(tmp_path / "scratch"))
    until(lambda: saved(tmp_path))
    pids = workers_of(launcher.pid)
    os.kill(pids[1], signal.SIGSTOP)
    launcher.send_signal(signal.SIGINT)
    time.sleep(1)
    assert launcher.poll() is None
    (scratch,) = (tmp_path / "scratch").glob("commexp-*")
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=15)
    assert (launcher.returncode, "Traceback" in err) == (143, False)
    until(lambda: not any(map(alive, pids)), seconds=15)
    assert not os.path.exists(scratch)


@beside
def test_a_stopped_server_is_told_within_the_timeout(started: Start, tmp_path: Path) -> None:
    words = [*SMALL, "algo=async_ps", "workers=2", "rounds=100000", "save_every=5", "launch.timeout=4"]
    launcher = started(*words, "launch=torchrun", "launch.nproc=3")
    until(lambda: saved(tmp_path), seconds=120)
    os.kill(workers_of(launcher.pid)[0], signal.SIGSTOP)
    begun = time.monotonic()
    _, err = launcher.communicate(timeout=60)
    assert time.monotonic() - begun < 4 + 15
    assert launcher.returncode == 1
    assert err.splitlines()[-1] == "commexp: error: rank 0: gave no answer to the others in launch.timeout"
    assert meta(tmp_path)["status"] == "failed"
