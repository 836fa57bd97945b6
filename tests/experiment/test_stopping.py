"""A run that stops where its question is answered is the beginning of the run that does not, in every family."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
import warm
from conftest import environment
from launch.processes import free_port, wait_for
from registry import interrupted, plan, untimed

from commexp.algorithms import SGD
from commexp.config.identity import what_decides
from commexp.config.messages import UserError
from commexp.config.schema import Stop
from commexp.experiment.execute import execute
from commexp.experiment.stopping import reached
from commexp.run_folder import Run

SMALL = ("dataset=breast_cancer", "model.hidden=[4]", "workers=4", "rounds=12", "batch_size=4", "debug=true")
TIMED = "network.compute.seconds=0.01"
FAMILIES = {
    "gradient": ("algo=topk", "compress.k=0.1"),
    "local": ("algo=localsgd", "algo.tau=3"),
    "decentralised": ("algo=dpsgd", "topology=ring"),
    "coded": ("algo=gradient_coding", "allocation=cyclic", "straggler=bernoulli", "straggler.p=0.3"),
    "asynchronous": ("algo=async_ps", "algo.iterations=2", "network.compute.slow=[3]", "workers=3"),
}
SEVENTH = 7  # the round at which the criteria of these tests are met
CRITERIA = {"accuracy": "test_accuracy", "loss": "test_loss", "bytes": "bytes_sent", "seconds": "sim_seconds"}
ROW = {
    "round": 120,
    "train_loss": 1.2,
    "test_loss": 1.4873,
    "test_accuracy": 0.75,
    "bytes_sent": 2000,
    "sim_seconds": 3.5,
}
Tables = dict[str, list[dict[str, str]]]


def tables(run: Run) -> Tables:
    return {name: untimed(run.folder / f"{name}.csv") for name in ("metrics", "traffic")}


def go(outputs: Path, *words: str) -> Run:
    return execute(plan(*words, f"outputs={outputs}"), torch.device("cpu"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tables]:
    """The tables of a family's run to its full length, evaluated after every round."""
    folder = tmp_path_factory.mktemp("whole")
    return cache(lambda family: tables(go(folder, *SMALL, TIMED, *FAMILIES[family], "eval_every=1")))


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (Stop(), ""),
        (Stop(accuracy=0.75), "stop.accuracy=0.75 (0.75 at round 120)"),
        (Stop(accuracy=0.76), ""),
        (Stop(loss=1.5), "stop.loss=1.5 (1.4873 at round 120)"),
        (Stop(loss=1.4873), "stop.loss=1.4873 (1.4873 at round 120)"),
        (Stop(loss=1.3), ""),
        (Stop(bytes=2000), "stop.bytes=2000 (2 kB at round 120)"),
        (Stop(bytes=2001), ""),
        (Stop(seconds=3.5), "stop.seconds=3.5 (3.5 s at round 120)"),
        (Stop(seconds=3.6), ""),
        (Stop(accuracy=0.9, loss=1.0, bytes=1e9, seconds=3), "stop.seconds=3 (3.5 s at round 120)"),
    ],
)
def test_which_criterion_a_row_meets(stop: Stop, told: str) -> None:
    assert reached(stop, ROW) == told


def test_what_a_row_does_not_have_is_not_met() -> None:
    costs = {key: ROW[key] for key in ("round", "bytes_sent", "sim_seconds")}
    assert reached(Stop(accuracy=0.1, loss=9), costs) == ""
    assert reached(Stop(loss=1.3), {"round": 1, "train_loss": 1.2}) == "stop.loss=1.3 (1.2 at round 1)"
    assert reached(Stop(loss=1.3), {"round": 1, "train_loss": float("nan")}) == ""


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_stops_at_the_first_round_that_meets_a_criterion(
    family: str, criterion: str, whole: Callable[[str], Tables], tmp_path: Path
) -> None:
    """Accuracy and loss are looked at where the run evaluates, here after rounds 0, 3, 6, 9 and 12; bytes and
    seconds after every round, and the last row is that of the stop."""
    full, column = whole(family), CRITERIA[criterion]
    value = full["metrics"][SEVENTH][column]
    stopped = go(tmp_path, *SMALL, TIMED, *FAMILIES[family], "eval_every=3", f"stop.{criterion}={value}")
    looked = full["metrics"][::3]
    good = (lambda x: x <= float(value)) if criterion == "loss" else (lambda x: x >= float(value))
    among = full["metrics"] if criterion in ("bytes", "seconds") else looked
    at = next(int(row["round"]) for row in among if good(float(row[column])))
    found = tables(stopped)
    assert found["metrics"] == [row for row in looked if int(row["round"]) < at] + [full["metrics"][at]]
    assert found["traffic"] == [row for row in full["traffic"] if int(row["round"]) <= at]
    summary = stopped.summary
    assert stopped.status == "completed"
    assert (summary["round"], summary["evaluated_round"]) == (at, at)
    assert summary["stopped_by"].startswith(f"stop.{criterion}=")
    assert summary["stopped_by"].endswith(f" at round {at})")
    if criterion in ("bytes", "seconds"):
        assert at == SEVENTH
        assert summary[column] == float(value)


def test_a_run_without_a_criterion_or_with_one_that_is_not_met_goes_to_its_end(
    whole: Callable[[str], Tables], tmp_path: Path
) -> None:
    run = go(tmp_path, *SMALL, TIMED, *FAMILIES["gradient"], "eval_every=1", "stop.bytes=1e12", "stop.loss=1e-9")
    assert tables(run) == whole("gradient")
    assert "stopped_by" not in run.summary


def test_a_start_that_is_good_enough_is_a_run_without_rounds(run: Callable[..., Run]) -> None:
    result = run(*SMALL, "stop.loss=100", figures=True)
    assert list(result.metrics["round"]) == [0]
    assert result.summary["stopped_by"].endswith("at round 0)")
    text = (result.folder / "summary.md").read_text()
    assert f"completed after 0 rounds\nstopped by {result.summary['stopped_by']}\n" in text


@pytest.mark.parametrize("criterion", ["loss", "bytes", "seconds"])
@pytest.mark.parametrize("family", ["gradient", "coded", "asynchronous"])
def test_an_interrupted_run_stops_where_it_would_have(
    family: str, criterion: str, whole: Callable[[str], Tables], tmp_path: Path
) -> None:
    value = whole(family)["metrics"][SEVENTH][CRITERIA[criterion]]
    words = (*SMALL, TIMED, *FAMILIES[family], "eval_every=2", f"stop.{criterion}={value}")
    undisturbed = go(tmp_path / "undisturbed", *words)
    with interrupted(after=5):
        halted = go(tmp_path / "halted", *words)
    assert (halted.status, halted.summary["round"]) == ("interrupted", 5)
    assert "stopped_by" not in halted.summary
    resumed = go(tmp_path / "halted", *words)
    assert "resumed after round 5" in (resumed.folder / "run.log").read_text()
    assert resumed.summary["stopped_by"] == undisturbed.summary["stopped_by"]
    assert tables(resumed) == tables(undisturbed)


def test_a_run_killed_in_its_last_round_stops_there_again(
    whole: Callable[[str], Tables], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint is that of the round before."""
    sent = whole("gradient")["metrics"][SEVENTH]["bytes_sent"]
    words = (*SMALL, TIMED, *FAMILIES["gradient"], "eval_every=5", "save_every=1", f"stop.bytes={sent}")
    honest = SGD.round

    def dies(self: SGD, t: int) -> None:
        if t + 1 == SEVENTH:
            raise KeyboardInterrupt
        honest(self, t)

    with monkeypatch.context() as patch:
        patch.setattr("commexp.algorithms.SGD.round", dies)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, *words)
    run = go(tmp_path, *words)
    assert "resumed after round 6" in (run.folder / "run.log").read_text()
    assert tables(run)["metrics"] == [whole("gradient")["metrics"][at] for at in (0, 5, SEVENTH)]


def test_a_run_that_diverges_where_it_would_stop_has_diverged(tmp_path: Path) -> None:
    words = ("+experiment=regtopk_linreg", "algo.lr=1e6", "rounds=50", "eval_every=40")
    sent = go(tmp_path, *words, "eval_every=1").metrics["bytes_sent"].iloc[-1]
    run = go(tmp_path, *words, f"stop.bytes={sent}")
    assert run.status == "diverged"
    assert "stopped_by" not in run.summary


def test_real_processes_stop_together(tmp_path: Path) -> None:
    """Four of them: in step, with a server that takes what comes in time, and with one that takes what comes first."""
    walker = Path(__file__).parents[1] / "launch" / "walker.py"
    exact, here, there = "comm.deterministic=true", tmp_path / "here", tmp_path / "there"
    kinds = [("algo=topk", "compress.k=0.1"), FAMILIES["local"], FAMILIES["decentralised"], FAMILIES["coded"]]
    cases = []
    for words in kinds:
        base = (*SMALL, TIMED, *words, exact)
        full = go(tmp_path / "full", *base, "eval_every=1").metrics
        for name in ("loss", "bytes", "seconds") if words == kinds[0] else ("seconds",):
            cases.append((*base, "eval_every=3", f"stop.{name}={full[CRITERIA[name]].iloc[SEVENTH]}"))
    alone = [go(here, *case) for case in cases]
    free = (*SMALL, *FAMILIES["asynchronous"], TIMED, "rounds=100000", "eval_every=100000")
    asynchronous = [(*free, "stop.bytes=20000"), (*free, "stop.seconds=0.2")]
    there.mkdir()
    configs = [{**plan(*case).resolved, "outputs": str(there)} for case in (*cases, *asynchronous)]
    group = {"processes": 4, "port": free_port(), "folder": str(there), "cases": list(range(len(configs)))}
    (there / "tasks.json").write_text(json.dumps({"configs": configs, "groups": [group]}))
    command = [sys.executable, str(walker), str(there / "tasks.json")]
    walking = warm.Popen(command, cwd=there, env=environment(), stdout=PIPE, stderr=PIPE, text=True)
    ((status, _, told),) = wait_for([walking], 200)
    assert status == 0, told[-2000:]
    for expected in alone:
        found = Run(there / "runs" / expected.name)
        assert found.summary["stopped_by"] == expected.summary["stopped_by"]
        assert tables(found) == tables(expected)
    unordered = [Run(path) for path in (there / "runs").glob("async_ps-*")]
    by_bytes, by_seconds = sorted(unordered, key=lambda run: run.config["stop"]["bytes"] is None)
    assert by_bytes.summary["stopped_by"].startswith("stop.bytes=20000 (")
    traffic = by_bytes.traffic
    before = traffic[traffic["round"] < by_bytes.summary["round"]]["bytes_sent"].sum()
    assert before < 20000 <= by_bytes.summary["bytes_sent"] == traffic["bytes_sent"].sum()
    assert by_seconds.summary["stopped_by"].startswith("stop.seconds=0.2 (")
    assert list(by_seconds.metrics["round"]) == [0, by_seconds.summary["round"]]
    assert by_seconds.metrics["sim_seconds"].iloc[-1] >= 0.2


def test_what_is_given_is_part_of_the_name_and_nothing_else() -> None:
    plain = plan(*SMALL)
    assert "stop" not in what_decides(plain.resolved, {"algo": plain.algorithm}, {})
    stops = plan(*SMALL, "stop.loss=0.5")
    assert what_decides(stops.resolved, {"algo": stops.algorithm}, {})["stop"] == {"loss": 0.5}
    words = [("stop.loss=0.5",), ("stop.loss=0.6",), ("stop.accuracy=0.5",), ("stop.loss=0.5", "stop.bytes=1e6")]
    assert len({plan(*SMALL, *each).name for each in (*words, ())}) == len(words) + 1
    assert plan(*SMALL, "stop.loss=null").identity == plain.identity


def test_an_accuracy_that_a_problem_does_not_have_is_refused(run: Callable[..., Run], tmp_path: Path) -> None:
    for words in (("dataset=linreg",), ("dataset=ratings",)):
        with pytest.raises(UserError, match=r"^stop.accuracy=0.9: nothing here has a test accuracy; give stop.loss"):
            run(*words, "workers=2", "stop.accuracy=0.9")
    assert not (tmp_path / "outputs").exists()
