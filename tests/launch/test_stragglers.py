"""Real processes that nobody waits for: sleepers, late answers, deaths; the run goes on to its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from launch.beside import Start, beside
from launch.processes import ranks, wait_for
from launch.test_failures import alive, meta, saved, until, workers_of
from registry import untimed

from commexp.api import run_experiment
from commexp.run_folder import Run

SERVER = Path(__file__).with_name("server.py")
CODED = [
    "algo=gradient_coding",
    "allocation=cyclic",
    "comm.deterministic=true",
    "dataset=linreg",
    "dataset.dim=40",
    "dataset.samples=20",
    "eval_every=5",
]
CODED += ["workers=4", "network.compute.seconds=0.02", "save_every=5", "launch=torchrun", "launch.nproc=4"]
TWO = "launch.nproc=2"  # with two workers each
SLEEPER = ["straggler=fixed", "straggler.workers=[3]", "straggler.slowdown=100", "launch.inject=true"]


def finished(folder: Path) -> Run:
    (path,) = (folder / "outputs" / "runs").iterdir()
    return Run(path)


@beside
def test_a_sleeper_changes_nothing_and_the_dead_are_late_for_ever(started: Start, tmp_path: Path) -> None:
    """Until the death curve and books are those of one process; then the dead worker's answers are missing."""
    launcher = started(*CODED, *SLEEPER, "rounds=60")
    until(lambda: saved(tmp_path) >= 10)
    pids = workers_of(launcher.pid)
    os.kill(pids[1], signal.SIGKILL)
    _, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, err
    run = finished(tmp_path)
    (lost,) = run.meta["lost"]
    assert run.status == "completed"
    assert lost.startswith("rank 1 (worker 1) in round ")
    assert f"commexp: note: lost {lost}; the others go on without it" in err
    until(lambda: not any(map(alive, pids)), seconds=10)
    since = int(lost.split()[-1])
    alone = run_experiment(
        [*CODED, *SLEEPER, "rounds=60", "launch=single", "launch.inject=false", f"outputs={tmp_path}/alone"],
        figures=False,
    )
    for table in ("metrics", "traffic"):
        found, expected = (
            [row for row in untimed(r.folder / f"{table}.csv") if int(row["round"]) < since] for r in (run, alone)
        )
        assert found == expected
        assert found
    answers = dict(zip(run.metrics["round"], run.metrics["answers"], strict=True))
    assert answers[10] == 30, "three of four answer"
    assert answers[60] in (3 * (since - 1) + 2 * (61 - since), 3 * since + 2 * (60 - since))


@beside
def test_one_that_hangs_is_given_up(started: Start, tmp_path: Path) -> None:
    launcher = started(*CODED, TWO, "rounds=600", "launch.timeout=5", "network.compute.seconds=0")
    until(lambda: saved(tmp_path) >= 5)
    pids = workers_of(launcher.pid)
    os.kill(pids[1], signal.SIGSTOP)
    _, err = launcher.communicate(timeout=90)
    assert launcher.returncode == 0, err
    assert finished(tmp_path).meta["lost"][0].startswith("rank 1 (worker 2, 3) in round ")
    assert not any(map(alive, pids))


@beside
def test_the_server_dies_and_is_started_anew(started: Start, tmp_path: Path) -> None:
    launcher = started(*CODED, TWO, *SLEEPER, "rounds=60", "launch.max_restarts=1")
    until(lambda: saved(tmp_path) >= 20)
    os.kill(workers_of(launcher.pid)[0], signal.SIGKILL)
    _, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    run = finished(tmp_path)
    assert "resumed after round" in (run.folder / "run.log").read_text(), err
    alone = run_experiment(
        [*CODED, *SLEEPER, "rounds=60", "launch=single", "launch.inject=false", f"outputs={tmp_path}/alone"],
        figures=False,
    )
    for table in ("metrics", "traffic"):
        assert untimed(run.folder / f"{table}.csv") == untimed(alone.folder / f"{table}.csv")
    assert meta(tmp_path)["status"] == "completed"


@beside
def test_answers_to_another_round_are_dropped(started: Start, tmp_path: Path) -> None:
    """See server.py, which asserts."""
    ended = wait_for(ranks(3, [str(SERVER)], tmp_path), 60)
    assert [status for status, _, _ in ended] == [0, 0, 0], ended[0][2][-2000:]
    assert ended[0][1].split() == ["first", "deadline", "model", "bad", "lost"]


MISTAKES = [
    (
        ["compress=topk", "compress.error_feedback=true"],
        "compress=TopK: what it keeps of a worker would be lost with its process; give "
        "compress.error_feedback=false, a codec without memory, or comm.exchange=all_gather",
    ),
    (
        ["comm.exchange=all_gather", "launch.inject=true"],
        "launch.inject=true: with comm.exchange=all_gather processes wait for each other, late or not; give server",
    ),
    (
        ["network.compute.kind=measured", "launch.inject=true"],
        "launch.inject=true: network.compute.kind=measured has no seconds to sleep; give constant, lognormal, ...",
    ),
]


@beside
def test_mistakes(started: Start, tmp_path: Path) -> None:
    for launcher, says in [(started(*CODED, *words), says) for words, says in MISTAKES]:
        out, err = launcher.communicate(timeout=60)
        assert (launcher.returncode, out) == (2, "")
        assert err.splitlines() == [f"commexp: error: {says}"]
    assert not (tmp_path / "outputs").exists()
