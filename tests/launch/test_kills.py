"""kill -9 of ranks and of the launcher, at random moments: the tables are those of a run left in peace."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import warm
from conftest import environment
from launch.beside import Start, beside
from launch.test_failures import SMALL, alive, meta, saved, until, workers_of
from registry import untimed

from commexp.api import run_experiment

KILLS = int(os.environ.get("COMMEXP_KILLS", "2"))  # of ranks, in one run
NPROC = int(os.environ.get("COMMEXP_KILLS_NPROC", "2"))
RUN = [*SMALL, "compress=regtopk", "compress.k=4", "algo.momentum=0.5", "eval_every=50", "save_every=10"]
MANY = ["launch=torchrun", f"launch.nproc={NPROC}"]
FOUR, TWO = (["launch=torchrun", f"launch.nproc={n}"] for n in (4, 2))


def begin(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "commexp", *RUN, *words]
    with open(folder / "told", "ab") as told:
        return warm.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=told)


def moments(rounds: int) -> list[int]:
    """Rounds at which something is killed, by chance; the same every time."""
    return sorted(random.Random(0).sample(range(10, rounds - 400), KILLS))


def tables(folder: Path) -> list[list[dict[str, str]]]:
    (run,) = (folder / "outputs" / "runs").iterdir()
    return [untimed(run / f"{name}.csv") for name in ("metrics", "traffic")]


@beside
def test_ranks_killed_at_random(started: Start, tmp_path: Path) -> None:
    """One run, restarted by its launcher whenever a rank has died; then the same run in peace, in one process."""
    killed, peace = tmp_path / "killed", tmp_path / "peace"
    killed.mkdir()
    rounds = 200 * KILLS + 400
    exact = [f"rounds={rounds}", "comm.deterministic=true"]
    launcher = begin(killed, *exact, *MANY, f"launch.max_restarts={KILLS}")
    chance = random.Random(1)
    for moment in moments(rounds):
        until(lambda at_least=moment: saved(killed) >= at_least)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.02))  # in whatever phase of a round
        until(lambda: len(workers_of(launcher.pid)) == NPROC)
        os.kill(chance.choice(workers_of(launcher.pid)), signal.SIGKILL)
    assert launcher.wait(timeout=120 + 20 * KILLS) == 0, (killed / "told").read_text()
    told = (next(iter((killed / "outputs" / "runs").iterdir())) / "run.log").read_text()
    assert told.count("resumed after round") == KILLS
    run_experiment([*RUN, *exact, f"outputs={peace / 'outputs'}", "launch.device=cpu"], figures=False)
    assert tables(killed) == tables(peace)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@beside
def test_the_launcher_killed_checkpoints_damaged_and_another_split(started: Start, tmp_path: Path) -> None:
    """Killed and started again: with its newest checkpoint cut short; with one bit flipped. The first time it goes on
    with two processes instead of four, the last time with one. Each worker has a model, a momentum and a residual of
    its own."""
    killed, peace = tmp_path / "killed", tmp_path / "peace"
    killed.mkdir()
    exact = ["rounds=500", "comm.deterministic=true", "algo=dppf", "algo.tau=2"]
    for launch, harm, until_round in (
        (FOUR, lambda path: path.write_bytes(path.read_bytes()[:-10]), 20),
        (TWO, flip, 150),
    ):
        launcher = begin(killed, *exact, *launch)
        until(lambda at_least=until_round: saved(killed) >= at_least)  # type: ignore[misc]
        pids = workers_of(launcher.pid)
        launcher.kill()
        launcher.wait()
        until(lambda gone=pids: not any(map(alive, gone)))  # type: ignore[misc]
        harm(newest(killed))
    assert begin(killed, *exact).wait(timeout=120 + 20 * KILLS) == 0
    assert (killed / "told").read_text().count("is damaged and is not used") == 2
    assert meta(killed)["processes"] == 1
    run_experiment([*RUN, *exact, f"outputs={peace / 'outputs'}", "launch.device=cpu"], figures=False)
    assert tables(killed) == tables(peace)


def newest(folder: Path) -> Path:
    """A part of the newest checkpoint."""
    last = saved(folder)
    return next(folder.glob(f"outputs/runs/*/checkpoints/state-{last}-0-*.safetensors"))
