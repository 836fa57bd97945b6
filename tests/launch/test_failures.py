"""What goes wrong between real processes: one line that names the rank and the cause, exit 1, nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import warm
from launch.beside import Start, beside, play_one
from launch.processes import ranks, wait_for

from commexp.api import run_experiment
from commexp.config.messages import UserError
from commexp.launch.member import _place

SMALL = ["algo=topk", "dataset=linreg", "dataset.dim=40", "dataset.samples=20", "workers=8"]  # no library is loaded
LONG = [*SMALL, "compress.k=4", "rounds=100000", "eval_every=1", "save_every=5"]
TWO = ["launch=torchrun", "launch.nproc=2"]


def workers_of(launcher: int) -> list[int]:
    """Process ids of the ranks, in their order."""
    listed = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return sorted(int(pid) for pid in listed if runs_worker(Path("/proc") / pid))


def runs_worker(process: Path) -> bool:
    """Started as one of a run's processes, or forked for it."""
    return b"cli.worker" in (process / "cmdline").read_bytes() or (process / "comm").read_text() == f"{warm.NAME}\n"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def saved(folder: Path) -> int:
    rounds = [int(p.stem.split("-")[1]) for p in folder.glob("outputs/runs/*/checkpoints/state-*.json")]
    return max(rounds, default=0)


def meta(folder: Path) -> dict[str, str]:
    (path,) = folder.glob("outputs/runs/*/meta.json")
    return json.loads(path.read_text())


@beside
def test_the_first_rank_dies(started: Start, tmp_path: Path) -> None:
    dies(0, started, tmp_path)


@beside
def test_another_rank_dies(started: Start, tmp_path: Path) -> None:
    dies(1, started, tmp_path)


def dies(rank: int, started: Start, tmp_path: Path) -> None:
    launcher = started(*LONG, *TWO)
    until(lambda: saved(tmp_path))
    pids = workers_of(launcher.pid)
    os.kill(pids[rank], signal.SIGKILL)
    out, err = launcher.communicate(timeout=30)
    line = f"rank {rank}: SIGKILL killed it; launch.max_restarts=3 would go on from the last checkpoint"
    assert (launcher.returncode, out) == (1, "")
    assert err.splitlines()[-1] == f"commexp: error: {line}"
    assert "Traceback" not in err
    assert (meta(tmp_path)["status"], meta(tmp_path)["error"]) == ("failed", line)
    assert not any(map(alive, pids))


@beside
def test_a_rank_that_hangs(started: Start, tmp_path: Path) -> None:
    launcher = started(*LONG, *TWO, "launch.timeout=6")
    until(lambda: saved(tmp_path))
    pids = workers_of(launcher.pid)
    os.kill(pids[1], signal.SIGSTOP)
    _, err = launcher.communicate(timeout=6 + 30)
    assert launcher.returncode == 1
    assert err.splitlines()[-1] == "commexp: error: rank 1: gave no answer to the others in launch.timeout"
    assert not any(map(alive, pids))


@beside
def test_a_launcher_that_is_killed_leaves_nobody(started: Start, tmp_path: Path) -> None:
    launcher = started(*LONG, *TWO)
    until(lambda: saved(tmp_path))
    pids = workers_of(launcher.pid)
    os.kill(pids[1], signal.SIGSTOP)  # even one that cannot move
    launcher.kill()
    until(lambda: not any(map(alive, pids)), seconds=15)


def check_listening(pids: Sequence[int]) -> None:
    """On the loopback alone."""
    found = [address for pid in pids for address in listening(pid)]
    assert len(found) >= 3
    assert {a for a in found if not a.startswith("127.")} == set(), "listens beyond the loopback interface"


@beside
def test_sockets_listen_on_the_loopback_alone_and_an_interrupt_saves(started: Start, tmp_path: Path) -> None:
    launcher = started(*LONG, *TWO)
    until(lambda: saved(tmp_path))
    pids = workers_of(launcher.pid)
    check_listening([launcher.pid, *pids])
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=30)
    assert launcher.returncode == 130
    assert "Traceback" not in err
    assert meta(tmp_path)["status"] == "interrupted"
    assert meta(tmp_path)["command"].endswith(" ".join([*LONG, *TWO])), "what was typed, not how a process was started"
    assert not any(map(alive, pids))


def test_an_interrupt_before_anything_has_begun(tmp_path: Path) -> None:
    """Played alone: beside others it might have begun."""
    play_one(interrupted_at_once, tmp_path)


def interrupted_at_once(started: Start, tmp_path: Path) -> None:
    launcher = started(*LONG, *TWO)
    until(lambda: len(workers_of(launcher.pid)) == 2)
    pids = workers_of(launcher.pid)
    launcher.send_signal(signal.SIGINT)
    out, err = launcher.communicate(timeout=30)
    assert (launcher.returncode, out, err) == (130, "", "")
    assert not any(map(alive, pids))


@beside
def test_a_port_in_use(started: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        launcher = started(*TWO, f"launch.port={port}")
        _, err = launcher.communicate(timeout=30)
    assert launcher.returncode == 1
    assert err == (
        f"commexp: error: rank 0: launch.port={port} cannot be had on 127.0.0.1 (Address already in use); "
        "give another, or 0 for a free one\n"
    )


@beside
def test_a_rank_that_cannot_reach_the_others(started: Start, tmp_path: Path) -> None:
    """Rank 1 of 2, started by hand, and nobody listens."""
    command = ["-m", "commexp", "launch.timeout=2"]
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        (process,) = ranks(2, command, tmp_path, only=[1], MASTER_PORT=str(deaf.getsockname()[1]))
        begin = time.monotonic()
        ((status, _, err),) = wait_for([process], 32)
        assert time.monotonic() - begin < 32
    assert status == 1
    assert err.startswith("commexp: error: rank 1: did not meet the 2 processes at 127.0.0.1:")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["launch.nproc=3"], "launch.nproc=3: 8 workers cannot be spread evenly over it; give a divisor of workers"),
        (["launch.nproc=0"], "launch.nproc=0: must not be less than 1; give a number of processes"),
    ],
)
def test_a_number_of_processes_that_does_not_fit_starts_none(words: list[str], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        run_experiment([*TWO, *words, f"outputs={tmp_path / 'outputs'}"])
    assert str(refused.value) == line
    assert not (tmp_path / "outputs").exists()


@beside
def test_a_users_mistake_is_refused_in_one_line(started: Start, tmp_path: Path) -> None:
    """One that only the processes can find."""
    launcher = started(*TWO, *SMALL, "compress.k=99999999")
    out, err = launcher.communicate(timeout=60)
    assert (launcher.returncode, out) == (2, "")
    assert err.startswith("commexp: error: compress.k=99999999: more entries than the")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there() -> None:
    """As a process finds it; how its refusal comes to the user is tested above."""
    with pytest.raises(UserError, match=r"^launch\.device=cuda: not usable here; give cpu, or auto$"):
        _place("cuda", 2)


def test_torchrun_starts_no_sweep(tmp_path: Path) -> None:
    ended = wait_for(ranks(1, ["-m", "commexp", "-m", "seed=0,1"], tmp_path), 60)
    assert ended[0][0] == 2
    assert "torchrun" in ended[0][2]


def listening(pid: int) -> list[str]:
    """Addresses of a process's listening TCP sockets, from the kernel's tables."""
    own = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(handle))
        except OSError:
            continue
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                packed = bytes.fromhex(words[1].split(":")[0])
                addresses.append(socket.inet_ntoa(packed[::-1]) if table == "tcp" else packed.hex())
    return addresses
