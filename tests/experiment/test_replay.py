"""Replay: a run's own seconds back exactly, and those of a fresh run on another network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from registry import plan

from commexp.cli.report import main
from commexp.config.messages import UserError
from commexp.experiment.replay import Replay
from commexp.report.replay import crossing
from commexp.run_folder import Run

SMALL = ["dataset=linreg", "dataset.dim=20", "dataset.samples=10", "workers=8", "rounds=20", "eval_every=7"]
METHODS = [
    ["compress=topk", "compress.k=3"],
    ["compress=topk", "compress.k=3", "comm.exchange=server"],
    ["algo=dsgt", "topology=star", "gossip.rounds=3"],
    ["algo=dpsgd", "topology=one_peer"],
    ["algo=mgrawa", "algo.tau=3"],
    ["algo=gradient_coding", "allocation.d=3"],
    ["algo=ignore", "comm.exchange=all_gather"],
]
DRAWN = ["network.compute.kind=lognormal", "network.compute.seconds=0.01"]
PARETO = ["network.compute.kind=pareto", "network.compute.seconds=0.01", "network.compute.slow=[3,2]"]
NETWORKS = [
    ["network=ethernet_1g"],
    ["network=mobile", *DRAWN, "straggler=bernoulli"],
    ["network=ethernet_100m", *PARETO, "straggler=bernoulli"],
    ["network=ethernet_1g", "network.links={3:{bandwidth:10,latency:5},0:{up:50}}", *DRAWN, "straggler=bernoulli"],
]


@pytest.mark.parametrize("method", METHODS, ids=" ".join)
def test_seconds_are_those_of_a_run_there(method: list[str], run: Callable[..., Run]) -> None:
    made = [run(*SMALL, *method, *words) for words in NETWORKS]
    for one, words in zip(made, NETWORKS, strict=True):
        own = list(one.metrics["sim_seconds"])
        assert Replay(one).seconds(plan(*words).network) == own
        assert own[0] == 0
        assert own == sorted(own)
    assert Replay(made[1]).seconds(plan(*NETWORKS[2]).network) == list(made[2].metrics["sim_seconds"])


def test_measured_seconds_come_back(run: Callable[..., Run]) -> None:
    done = run(*SMALL, "compress=topk", "compress.k=3", "network.compute.kind=measured")
    assert Replay(done).seconds(plan("network.compute.kind=measured").network) == list(done.metrics["sim_seconds"])


@pytest.mark.drawn
def test_the_command(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = [run(*SMALL, f"compress={codec}") for codec in ("none", "fp16")]
    out = tmp_path / "report"
    words = ["commexp-report", "--replay", "network=mobile", "--out", str(out), *(str(r.folder) for r in done)]
    monkeypatch.setattr(sys, "argv", words)
    main()
    told = capsys.readouterr().out
    assert told.startswith("network=mobile\n")
    assert "| fp16   |" in told
    assert "everywhere" in told, "without computing half the bytes are always faster"
    assert {p.name for p in out.iterdir()} == {
        "replay.md", "replay.csv", "replay_budgets.csv", "replay_pareto.csv",
        *(f"{name}.{kind}" for name in ("replay", "replay_pareto") for kind in ("png", "pdf")),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--replay", "algo=topk"], "--replay algo=topk: says nothing of the network; give network=mobile"),
        (["--replay", "network=carrier_pigeon"], "network=carrier_pigeon: no such option"),
    ],
)
def test_mistakes(
    words: list[str], wrong: str, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = run(*SMALL, "rounds=2").folder
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["commexp-report", *words, "--out", str(tmp_path / "report"), str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"commexp: error: {wrong}")
    assert not (tmp_path / "report").exists()


def test_a_run_without_its_tables_is_named(run: Callable[..., Run]) -> None:
    done = run(*SMALL, "rounds=2")
    (done.folder / "rounds.csv").unlink()
    with pytest.raises(UserError, match=r"RUN=.*: has no rounds.csv; give the folder of a run that has ended"):
        Replay(done)


def test_a_network_that_does_not_fit_the_runs_workers_is_refused(run: Callable[..., Run]) -> None:
    replay = Replay(run(*SMALL, "rounds=2"))
    with pytest.raises(UserError, match=r"RUN=.*: network.links=\{8:\{up:1.0\}\}: there is no worker 8 of 8; give"):
        replay.seconds(plan("network.links={8:{up:1}}").network)


def test_where_two_lines_cross() -> None:
    bandwidths = [1.0, 10.0, 100.0, 1000.0]
    assert crossing(bandwidths, [1.0, 1.0, 1.0, 1.0], [8.0, 4.0, 2.0, 1.5]) is None
    assert crossing(bandwidths, [2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]) == 0.0
    assert crossing(bandwidths, [2.0, 2.0, 2.0, 2.0], [8.0, 4.0, 1.0, 1.0]) == pytest.approx(10**1.5)
    assert crossing(bandwidths, [float("inf")] * 4, [1.0] * 4) == 0.0
