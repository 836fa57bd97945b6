"""Workers and a server in processes: nobody waits, who dies is named, who comes back is welcome."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

from launch.beside import Start, beside
from launch.test_failures import alive, check_listening, meta, saved, until, workers_of
from launch.test_stragglers import finished
from registry import untimed

from commexp.api import run_experiment
from commexp.run_folder import Run

WORLD = ["dataset=ratings", "dataset.users=60", "dataset.items=40", "dtype=float64"]
WORLD += ["workers=3", "batch_size=8", "network.compute.seconds=0.002"]
FIVE = "algo.iterations=5"
REAL = ["launch=torchrun", "launch.nproc=4"]
SLEEPING = [*REAL, "launch.inject=true", "network.compute.slow=[10]"]  # 10 ms for a message, 100 ms for worker 0's


FEWER = ["workers=2", "launch.nproc=3"]


def table(run: Run, name: str) -> list[dict[str, str]]:
    with open(run.folder / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rounds(folder: Path) -> int:
    """So far."""
    (path,) = folder.glob("outputs/runs/*/metrics.csv")
    return int(path.read_text().splitlines()[-1].split(",")[0])


def lost(folder: Path) -> list[str]:
    return [text.rpartition(" in ")[0] for text in meta(folder).get("lost", [])]


def back(folder: Path) -> list[str]:
    return [text.rpartition(" in ")[0] for text in meta(folder).get("back", [])]


@beside
def test_behind_a_barrier_the_curve_is_that_of_the_virtual_clock(started: Start, tmp_path: Path) -> None:
    """With a codec whose memory is in the workers' processes."""
    words = [*WORLD, "algo=sync_ps", FIVE, "algo.solver=svrg", "compress=topk", "compress.k=5"]
    words += ["compress.error_feedback=true", "rounds=20", "eval_every=5"]
    launcher = started(*words, *REAL)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    real, alone = finished(tmp_path), run_experiment([*words, f"outputs={tmp_path}/alone"], figures=False)
    assert real.name != alone.name, "whose message comes first is decided elsewhere"
    for name in ("metrics", "traffic"):
        times = {"sim_seconds"}
        found, expected = (
            [{k: v for k, v in row.items() if k not in times} for row in untimed(run.folder / f"{name}.csv")]
            for run in (real, alone)
        )
        assert found == expected
        assert found
    assert (real.meta["processes"], real.meta["clock"]) == (4, "wall")
    assert "clock" not in alone.meta


@beside
def test_a_server_that_was_stopped_goes_on_and_so_do_others_without_the_dead(started: Start, tmp_path: Path) -> None:
    launcher = started(*WORLD, *SLEEPING, "algo=async_ps", FIVE, "rounds=240", "eval_every=10", "save_every=10")
    until(lambda: saved(tmp_path) >= 20)
    pids = workers_of(launcher.pid)
    check_listening([launcher.pid, *pids])
    os.kill(pids[0], signal.SIGSTOP)
    time.sleep(1)  # what workers send meanwhile may take each other's place: see test_hub.py
    os.kill(pids[0], signal.SIGCONT)
    os.kill(pids[1], signal.SIGKILL)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    run = finished(tmp_path)
    assert (run.status, lost(tmp_path)) == ("completed", ["rank 1 (worker 0)"])
    assert f"commexp: note: lost {run.meta['lost'][0]}; the others go on without it" in err
    until(lambda: not any(map(alive, pids)), seconds=10)
    workers = table(run, "workers")
    assert [int(w["calls"]) > 60 for w in workers] == [False, True, True]
    assert sum(int(w["calls"]) for w in workers) == 240
    assert all(int(w["iterations"]) >= 5 * (int(w["calls"]) + int(w["overwritten"])) for w in workers[1:])
    assert run.metrics["train_loss"].iloc[-1] < run.metrics["train_loss"].iloc[0] / 2
    assert {span["worker"] for span in table(run, "gantt")} == {"0", "1", "2"}


@beside
def test_nobody_waits_for_a_slow_neighbour(started: Start, tmp_path: Path) -> None:
    """AD-PSGD, worker 0 ten times slower: the others average with it all the same, and go on."""
    words = ["algo=adpsgd", "topology=ring", "rounds=90", "eval_every=30", "algo.lr=20", "network.compute.seconds=0.01"]
    launcher = started(*WORLD, *SLEEPING, *words)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    run = finished(tmp_path)
    calls = [int(w["calls"]) for w in table(run, "workers")]
    slow, *others = calls
    traffic, vector = run.traffic, 8 * int(run.meta["parameters"])
    assert set(traffic["exchange"]) == {"gossip"}
    assert traffic["bytes_wire"].sum() == run.metrics["bytes_wire"].iloc[-1] == 2 * vector * sum(calls)
    assert sum(calls) >= 90
    assert min(others) > 3 * slow
    ages = {int(row["staleness"]): int(row["messages"]) for row in table(run, "staleness")}
    assert sum(ages.values()) == sum(calls)
    assert max(ages) >= 6, "of worker 0, while the others went on"
    assert run.metrics["train_loss"].iloc[-1] < run.metrics["train_loss"].iloc[0]


@beside
def test_who_hangs_or_dies_may_come_back(started: Start, tmp_path: Path) -> None:
    """Where others wait for it they do so for launch.timeout; the dead one is started anew."""
    words = ["algo=ssp", FIVE, "algo.bound=2", "rounds=1000", "eval_every=5", "save_every=5", "launch.timeout=5"]
    launcher = started(*WORLD, *SLEEPING, *FEWER, *words, "launch.max_restarts=1")
    until(lambda: saved(tmp_path) >= 10)
    pids = workers_of(launcher.pid)
    os.kill(pids[1], signal.SIGSTOP)
    until(lambda: lost(tmp_path) == ["rank 1 (worker 0)"])
    os.kill(pids[1], signal.SIGCONT)
    until(lambda: back(tmp_path) == ["rank 1 (worker 0)"])
    os.kill(pids[2], signal.SIGKILL)
    until(lambda: lost(tmp_path)[1:] == ["rank 2 (worker 1)"])
    until(lambda: back(tmp_path)[1:] == ["rank 2 (worker 1)"])
    before = saved(tmp_path)
    until(lambda: saved(tmp_path) >= before + 30)
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, err
    assert meta(tmp_path)["status"] == "interrupted"
    assert "rank 2 (worker 1) in round" in err
    assert "is back" in err


@beside
def test_the_server_dies_and_is_started_anew(started: Start, tmp_path: Path) -> None:
    """async_sgd: its workers must be told the snapshot again, and what their codecs remember is on disk."""
    words = ["algo=async_sgd", "algo.solver=svrg", "algo.epoch=40", "compress=topk", "compress.k=0.5"]
    words += ["compress.error_feedback=true", "rounds=240", "eval_every=10", "save_every=10", "launch.max_restarts=1"]
    launcher = started(*WORLD, *SLEEPING, *FEWER, *words, "network.compute.slow=[2]")
    until(lambda: saved(tmp_path) >= 60)
    assert list(tmp_path.glob("outputs/runs/*/checkpoints/worker-*.safetensors"))
    os.kill(workers_of(launcher.pid)[0], signal.SIGKILL)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    run = finished(tmp_path)
    assert (run.status, "lost" in run.meta) == ("completed", False)
    assert not (run.folder / "checkpoints").exists()
    resumed = [line for line in (run.folder / "run.log").read_text().splitlines() if "resumed after round" in line]
    assert int(resumed[0].split()[-1]) >= 60
    assert run.metrics["round"].tolist() == list(range(0, 241, 10))
    assert run.metrics["calls"].is_monotonic_increasing
    assert run.metrics["wall_seconds"].is_monotonic_increasing
    assert run.metrics["train_loss"].iloc[-1] < run.metrics["train_loss"].iloc[0] / 2


@beside
def test_a_process_is_missing(started: Start, tmp_path: Path) -> None:
    launcher = started(*WORLD, "algo=async_ps", *REAL, "launch.nproc=2")
    out, err = launcher.communicate(timeout=60)
    says = "launch.nproc=2: algo=async_ps has a server and 3 workers, each in a process; give 4"
    assert (launcher.returncode, out, err) == (2, "", f"commexp: error: {says}\n")
    assert not (tmp_path / "outputs").exists()
