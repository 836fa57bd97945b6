"""DiLoCo with a quorum over real processes: who is killed is left out and comes back; a resumed run is the same."""

from __future__ import annotations

import csv
import os
import signal
from itertools import pairwise
from pathlib import Path

from launch.beside import Start, beside
from launch.test_async_processes import back, lost
from launch.test_failures import alive, meta, saved, until, workers_of
from launch.test_stragglers import finished
from registry import untimed

from commexp.api import run_experiment

DILOCO = ["algo=diloco", "algo.tau=2", "dataset=linreg", "dataset.dim=40", "dataset.samples=20", "compress=topk"]
DILOCO += ["compress.k=8", "save_every=5", "network.compute.kind=lognormal", "network.compute.seconds=0.01"]
THREE = ["workers=3", "algo.quorum=2", "launch=torchrun", "launch.nproc=3", "launch.inject=true"]
TWO = ["launch=torchrun", "launch.nproc=2"]


def answers(folder: Path) -> list[int]:
    """So far, at each round that is evaluated."""
    (path,) = folder.glob("outputs/runs/*/metrics.csv")
    with open(path, encoding="utf-8") as file:
        return [int(row["answers"]) for row in csv.DictReader(file)]


@beside
def test_who_is_killed_in_a_round_is_left_out_and_comes_back(started: Start, tmp_path: Path) -> None:
    """With a grace that is long enough for everyone; it goes on with the optimiser and the residual that it kept."""
    launcher = started(*DILOCO, *THREE, "algo.grace=30", "rounds=600", "eval_every=1", "launch.max_restarts=1")
    until(lambda: saved(tmp_path) >= 5)
    os.kill(workers_of(launcher.pid)[1], signal.SIGKILL)
    until(lambda: back(tmp_path) == ["rank 1 (worker 1)"])
    assert lost(tmp_path) == ["rank 1 (worker 1)"]
    since = int(meta(tmp_path)["back"][0].split()[-1])
    until(lambda: saved(tmp_path) >= since + 20)
    assert list(tmp_path.glob("outputs/runs/*/checkpoints/worker-1.json"))
    pids = workers_of(launcher.pid)
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, err
    assert "is back" in err
    until(lambda: not any(map(alive, pids)), seconds=10)
    gone = int(meta(tmp_path)["lost"][0].split()[-1])
    counted = answers(tmp_path)
    each = [b - a for a, b in pairwise(counted)]
    assert each[: gone - 1] == [3] * (gone - 1)
    assert set(each[gone : since - 1]) <= {2}, "the others go on without it"
    assert since > gone + 2
    assert each[since + 5 :], "and with it"
    assert set(each[since + 5 :]) == {3}


@beside
def test_a_run_that_was_killed_and_interrupted_is_resumed_bit_for_bit(started: Start, tmp_path: Path) -> None:
    """AdamW's moments and the residuals of other processes' workers are saved with the rest; so are those of a process
    of whose workers none takes part for a while."""
    words = [*DILOCO, "workers=6", "participation=0.5", "algo.quorum=2", "straggler=bernoulli", "straggler.p=0.3"]
    words.append("rounds=100")
    words += ["comm.deterministic=true", "eval_every=10"]
    killed = started(*words, *TWO, "launch.inject=true")
    until(lambda: saved(tmp_path) >= 10)
    pids = workers_of(killed.pid)
    killed.kill()
    until(lambda: not any(map(alive, pids)))
    interrupted = started(*words, *TWO, "launch.inject=true")
    until(lambda: saved(tmp_path) >= 30)
    interrupted.send_signal(signal.SIGINT)
    _, err = interrupted.communicate(timeout=60)
    assert (interrupted.returncode, meta(tmp_path)["status"]) == (130, "interrupted"), err
    resumed = started(*words, *TWO)
    _, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    run = finished(tmp_path)
    assert (run.folder / "run.log").read_text().count("resumed after round") == 2
    alone = run_experiment([*words, f"outputs={tmp_path}/alone"], figures=False)
    for table in ("metrics", "traffic"):
        assert untimed(run.folder / f"{table}.csv") == untimed(alone.folder / f"{table}.csv")
    assert 2 * 100 <= int(alone.metrics["answers"].iloc[-1]) < 3 * 100


@beside
def test_less_than_a_quorum_is_waited_for_and_then_said(started: Start, tmp_path: Path) -> None:
    launcher = started(*DILOCO, *THREE, "algo.quorum=3", "rounds=10000", "launch.timeout=5")
    until(lambda: saved(tmp_path) >= 5)
    pids = workers_of(launcher.pid)
    os.kill(pids[2], signal.SIGKILL)
    _, err = launcher.communicate(timeout=60)
    says = "rank 0: 2 workers are left, fewer than algo.quorum=3, and none came back in launch.timeout"
    assert launcher.returncode == 1
    assert err.splitlines()[-1] == f"commexp: error: {says}"
    assert (meta(tmp_path)["status"], meta(tmp_path)["error"]) == ("failed", says)
    assert not any(map(alive, pids))
