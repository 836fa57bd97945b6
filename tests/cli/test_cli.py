"""The command line as a real process: exit statuses, one-line errors, signals, two at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from conftest import Cli, environment
from registry import untimed

from commexp.api import run_experiment
from commexp.run_folder import Run

SHORT = ("rounds=10", "eval_every=5", "model.width=8", "batch_size=2")
SMALL = ("dataset=linreg", "dataset.dim=40", "dataset.samples=20", "workers=8")  # a process has done it soon
LONG = (*SMALL, "rounds=100000", "eval_every=1")


def one_line_refusal(done: subprocess.CompletedProcess[str], start: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"commexp: error: {start}")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "start"),
    [
        (["algo.learning_rate=1"], "algo.learning_rate=1: no such key"),
        (
            ["compress=none", "compress.k=0.1"],
            "compress.k=0.1: compress=none has no 'k'; choose compress=chunked, dct_chunked, randk, regtopk or topk",
        ),
        (["algo=topk", "compress.k=1.5"], "compress.k=1.5:"),
        (["workers=2000"], "workers=2000:"),
        (["rounds=many"], "rounds=many:"),
        (["outputs=/proc/nowhere"], "outputs=/proc/nowhere: cannot be written"),
        (["compress.k="], "compress.k"),
        (["rounds"], "rounds"),
        (["compress._target_=commexp.Nothing"], "compress._target_=commexp.Nothing: cannot be imported"),
        (["-m", "algo=topk,regtopkk"], "algo=regtopkk: no such option"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_mistake_gets_one_line_and_exit_two(args: list[str], start: str, entry: Cli, tmp_path: Path) -> None:
    one_line_refusal(entry(*args), start)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "start"),
    [
        (["algo=regtopkk"], "algo=regtopkk: no such option; did you mean regtopk"),
        (["-m", "compress=topk", "compress.k=0.1,0"], "compress.k=0:"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_so_does_a_process_and_a_sweep(args: list[str], start: str, cli: Cli, tmp_path: Path) -> None:
    one_line_refusal(cli(*args), start)
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_is_there_for_those_who_ask(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "commexp", "algo=regtopkk"],
        cwd=tmp_path, env={**environment(), "HYDRA_FULL_ERROR": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" in done.stderr
    assert done.returncode not in (0, 2)


@pytest.mark.drawn
def test_a_run_from_an_empty_folder(cli: Cli, entry: Cli, tmp_path: Path) -> None:
    done = cli(*SHORT, "algo=regtopk", start=subprocess.run)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert str(folder.relative_to(tmp_path)) in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outputs"], "Hydra left something behind"
    again = entry(*SHORT, "algo=regtopk")
    assert again.stdout == done.stdout


def test_divergence_exits_three(cli: Cli, entry: Cli, tmp_path: Path) -> None:
    for call in (cli, entry):
        done = call(*SMALL, "algo.lr=1e6", "rounds=60")
        assert done.returncode == 3
        assert "diverged" in done.stdout
    (meta,) = (tmp_path / "outputs" / "runs").glob("*/meta.json")
    assert json.loads(meta.read_text())["status"] == "diverged"


def start(tmp_path: Path, *args: str) -> subprocess.Popen[str]:
    return warm.Popen(
        [sys.executable, "-m", "commexp", *args],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def wait_for(tmp_path: Path, pattern: str, at_least: int = 1) -> Path:
    """Waits until so many files below outputs/ match; returns one of them."""
    wait_until(lambda: len(list((tmp_path / "outputs").glob(pattern))) >= at_least)
    return next((tmp_path / "outputs").glob(pattern))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_a_usable_folder(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, *LONG)
    log = wait_for(tmp_path, "runs/*/run.log")
    wait_until(lambda: "round" in log.read_text())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    folder = log.parent
    assert json.loads((folder / "meta.json").read_text())["status"] == "interrupted"
    assert len((folder / "metrics.csv").read_text().splitlines()) > 1
    assert len(list((folder / "checkpoints").glob("state-*.safetensors"))) == 1
    assert (folder / "summary.md").is_file()


EAGER = (
    "import commexp.experiment.loop as r; r.SAVE_SECONDS = r.SAVE_SHARE = 0; from commexp.cli.run import main; main()"
)


def completed(tmp_path: Path) -> int:
    """Rounds in the newest checkpoint of the only run."""
    try:
        return max(
            json.loads(p.read_text())["completed"] for p in tmp_path.glob("outputs/runs/*/checkpoints/state-*.json")
        )
    except (ValueError, OSError):
        return 0


def test_kill_nine_then_the_same_command(tmp_path: Path) -> None:
    """A run that saves after every round is killed again and again; its tables equal those of one left in peace."""
    args = ["algo=regtopk", *SMALL, "compress.k=4", "rounds=400", "eval_every=10", "algo.momentum=0.5"]
    for kill in range(3):
        process = warm.Popen(
            [sys.executable, "-c", EAGER, *args], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if kill < 2:
            wait_until(lambda at_least=100 * kill + 15: completed(tmp_path) >= at_least)  # type: ignore[misc]
            process.kill()
    assert process.wait(timeout=60) == 0
    (killed,) = (tmp_path / "outputs" / "runs").iterdir()
    assert "resumed" in (killed / "run.log").read_text()
    peaceful = run_experiment([*args, f"outputs={tmp_path / 'peace'}", "launch.device=cpu"], figures=False).folder
    assert peaceful.name == killed.name
    for name in ("metrics.csv", "traffic.csv"):
        assert untimed(killed / name) == untimed(peaceful / name)


def test_two_identical_commands_at_once_leave_one_sound_folder(tmp_path: Path) -> None:
    both = [start(tmp_path, *SMALL, "rounds=10", "algo=topk", "compress.k=4") for _ in range(2)]
    outputs = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert json.loads((folder / "meta.json").read_text())["status"] == "completed"
    assert outputs[0][0] == outputs[1][0]
    assert not [p for p in folder.rglob(".*") if p.name != ".lock"], "temporary files were left"


@pytest.mark.parametrize(
    "args",
    ["--help", "--hydra-help", "--cfg job", "--cfg job --resolve", "--info", "--info defaults", "-sc install=bash"],
)
def test_hydras_own_flags(args: str, cli: Cli) -> None:
    done = cli(*args.split())
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == ""


def test_help_fits_on_one_screen_and_names_every_option(cli: Cli) -> None:
    from commexp.config.schema import CONF

    text = cli("--help").stdout
    assert len(text.splitlines()) <= 48
    assert max(map(len, text.splitlines())) <= 120
    for path in CONF.glob("*/*.yaml"):
        assert path.stem in text, path


def test_tab_completion_knows_the_groups(tmp_path: Path) -> None:
    env = {**environment(), "COMP_LINE": "commexp compress=", "COMP_POINT": "17"}
    done = warm.run(
        [sys.executable, "-m", "commexp", "-sc", "query=bash"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert "compress=regtopk" in done.stdout


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = warm.Popen(
        [sys.executable, "-m", "commexp", "rounds=60", "eval_every=1", "model=mlp", "model.hidden=[8]"],
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone when its last writer is
        while part := os.read(ours, 65536):
            shown += part
    assert process.wait(timeout=60) == 0
    for word in (b"/60 rounds", b"loss ", b"accuracy ", b"sent ", b" left"):
        assert word in shown


@pytest.mark.drawn
def test_report_compares_runs(run: Callable[..., Run], tmp_path: Path) -> None:
    folders = sorted(str(run(*SHORT, algo).folder) for algo in ("algo=topk", "algo=sgd"))
    program = [sys.executable, "-c", "from commexp.cli.report import main; main()"]
    done = warm.run([*program, *folders], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "topk k=0.01" in done.stdout
    assert (tmp_path / "outputs" / "comparison" / "comparison.png").is_file()
    wrong = warm.run([*program, "nowhere"], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("commexp: error: RUN=nowhere: no run")
