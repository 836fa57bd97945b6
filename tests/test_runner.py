"""One run: what it leaves, how it ends, how it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import pytest
from registry import options

from commexp.algorithms import SGD
from commexp.rundir import Run

SHORT = ("rounds=12", "eval_every=4", "model.width=8", "batch_size=4", "algo.schedule.warmup=0")


def test_what_a_run_leaves(run: Callable[..., Run]) -> None:
    result = run(*SHORT, "algo=regtopk", figures=True)
    names = {str(p.relative_to(result.folder)) for p in result.folder.rglob("*") if p.is_file()} - {".lock"}
    assert names == {
        "config.yaml", "meta.json", "metrics.csv", "traffic.csv", "summary.json", "summary.md", "run.log",
        "figures/curves.png", "figures/curves.pdf",
    }  # fmt: skip
    assert list(result.metrics.columns) == [
        "round", "step", "epoch", "samples", "wall_seconds", "sim_seconds", "train_loss", "test_loss", "test_accuracy",
        "bytes_info", "bytes_sent", "bytes_wire",
    ]  # fmt: skip
    assert result.meta["status"] == "completed"
    assert {"command", "seed", "torch", "commexp", "git_commit", "machine", "workers", "processes"} <= set(result.meta)
    assert result.config["algo"]["_target_"] == "commexp.algorithms.SGD"


@pytest.mark.parametrize("codec", options("compress"))
def test_bytes_by_hand(codec: str, run: Callable[..., Run]) -> None:
    """12 rounds of 8 workers: J fp32 numbers each, or k values and k narrow indices."""
    result = run(*SHORT, f"compress={codec}")
    j, last = result.summary["parameters"], result.metrics.iloc[-1]
    assert j < 32768
    k = round(0.01 * j)
    payload = 4 * j if codec == "none" else k * (4 + 2)
    wire = 2 * 7 * payload if codec == "none" else 8 * 7 * payload
    bits = 32 * j if codec == "none" else 32 * k + math.log2(math.comb(j, k))
    assert last["bytes_sent"] == 12 * 8 * payload
    assert last["bytes_wire"] == 12 * wire
    assert last["bytes_info"] == pytest.approx(12 * 8 * bits / 8)
    assert result.traffic["bytes_sent"].sum() == last["bytes_sent"]
    assert result.summary["dense_bytes"] == 12 * 8 * 4 * j
    assert last["samples"] == 12 * 8 * 4
    assert last["epoch"] == pytest.approx(12 * 8 * 4 / 1437)


def test_the_virtual_clock_adds_up(run: Callable[..., Run]) -> None:
    result = run(*SHORT, "compress=topk", "network=ethernet_100m", "network.compute=0.5")
    payload = result.summary["payload_bytes"]
    expected = 12 * (0.5 + 7 * (0.2e-3 + payload / 12.5e6))
    assert result.metrics["sim_seconds"].iloc[-1] == pytest.approx(expected)


def test_a_finished_run_is_shown_not_run_again(run: Callable[..., Run]) -> None:
    first = run(*SHORT)
    stamp = (first.folder / "metrics.csv").stat().st_mtime_ns
    again = run(*SHORT, "launch.threads=1", "target_accuracy=0.5")
    assert again.folder == first.folder
    assert (first.folder / "metrics.csv").stat().st_mtime_ns == stamp
    run(*SHORT, "rerun=true")
    assert (first.folder / "metrics.csv").stat().st_mtime_ns != stamp


class Stops:
    """In the place of Interrupts: as if Ctrl-C had been pressed after the sixth round."""

    rounds = 0

    def __enter__(self) -> Stops:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    @property
    def seen(self) -> bool:
        self.rounds += 1
        return self.rounds == 6


@pytest.mark.parametrize("codec", options("compress"))
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_interrupted_run_goes_on_bit_for_bit(
    codec: str, momentum: float, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (*SHORT, f"compress={codec}", f"algo.momentum={momentum}")
    whole = run(*overrides)
    table, traffic = whole.metrics.copy(), whole.traffic.copy()
    with monkeypatch.context() as patch:
        patch.setattr("commexp.runner.Interrupts", Stops)
        halted = run(*overrides, "rerun=true")
    assert halted.status == "interrupted"
    assert halted.metrics["round"].max() == 4
    assert (halted.summary["round"], halted.summary["evaluated_round"]) == (6, 4)
    assert halted.summary["bytes_sent"] == 6 * 8 * halted.summary["payload_bytes"]
    assert halted.summary["dense_bytes"] == 6 * 8 * 4 * halted.summary["parameters"]
    with monkeypatch.context() as patch:  # the resumed run dies in its turn, in round 9
        patch.setattr("commexp.algorithms.SGD.round", dies_in_round(8))
        with pytest.raises(KeyboardInterrupt):
            run(*overrides)
    resumed = run(*overrides)
    assert resumed.status == "completed"
    assert "resumed after round 6" in (resumed.folder / "run.log").read_text()
    assert not (resumed.folder / "checkpoints").exists()
    columns = [c for c in table.columns if c != "wall_seconds"]
    pd.testing.assert_frame_equal(resumed.metrics[columns], table[columns], check_exact=True)
    pd.testing.assert_frame_equal(resumed.traffic, traffic, check_exact=True)


def dies_in_round(number: int) -> Callable[..., None]:
    honest = SGD.round

    def dies(self: SGD, t: int) -> None:
        if t == number:
            raise KeyboardInterrupt
        honest(self, t)

    return dies


def test_dense_over_a_server_costs_what_dense_costs(run: Callable[..., Run]) -> None:
    summary = run(*SHORT, "compress=none", "comm.exchange=server").summary
    assert summary["bytes_against_dense"] == 1.0
    assert summary["bytes_sent"] == 2 * 12 * 8 * summary["payload_bytes"]


def test_divergence_stops_early_and_keeps_the_last_rows(run: Callable[..., Run]) -> None:
    result = run("+experiment=regtopk_linreg", "algo.lr=1e6", "eval_every=1")
    assert result.status == "diverged"
    assert result.metrics["round"].max() < 50
    last = result.metrics["train_loss"].iloc[-1]
    assert not math.isfinite(last) or last > 1e4
    assert result.summary["status"] == "diverged"
    assert run("+experiment=regtopk_linreg", "algo.lr=1e6", "eval_every=1").status == "diverged"


def test_digits_diverges_at_an_absurd_rate(run: Callable[..., Run]) -> None:
    assert run("algo.lr=1e6", "rounds=60").status == "diverged"


def test_a_run_that_fails_keeps_what_it_had(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    honest = SGD.round

    def breaks(self: SGD, t: int) -> None:
        if t == 9:
            raise OSError("the disk is on fire")
        honest(self, t)

    monkeypatch.setattr(SGD, "round", breaks)
    with pytest.raises(OSError, match="on fire"):
        run(*SHORT)
    monkeypatch.undo()
    (folder,) = [Run(p.parent) for p in _folders(run)]
    assert folder.status == "failed"
    assert folder.meta["error"] == "OSError: the disk is on fire"
    assert list(folder.metrics["round"]) == [0, 4, 8]
    assert "on fire" in (folder.folder / "run.log").read_text()
    assert run(*SHORT).status == "completed"


def _folders(run: Callable[..., Run]) -> list[object]:
    outputs = run.__closure__[0].cell_contents / "outputs" / "runs"  # type: ignore[union-attr]
    return list(outputs.glob("*/meta.json"))


def test_same_seed_same_curve_other_seed_other_curve(run: Callable[..., Run]) -> None:
    first = run(*SHORT, "algo=regtopk")
    table = first.metrics.copy()
    again = run(*SHORT, "algo=regtopk", "rerun=true")
    assert table.drop(columns="wall_seconds").equals(again.metrics.drop(columns="wall_seconds"))
    assert not run(*SHORT, "algo=regtopk", "seed=1").metrics["train_loss"].equals(table["train_loss"])


def test_deterministic_mode_gives_nearly_the_same_curve(run: Callable[..., Run]) -> None:
    overrides = ("algo=topk", "rounds=6", "eval_every=1", "model.width=8", "batch_size=4", "dtype=float64")
    fast, slow = (run(*overrides, f"comm.deterministic={d}").metrics["train_loss"] for d in ("false", "true"))
    assert (fast - slow).abs().max() < 1e-9


@pytest.mark.slow
def test_digits_dense_and_sparse_reach_the_accuracy(run: Callable[..., Run]) -> None:
    dense = run().summary
    assert dense["test_accuracy"] >= 0.97
    for algo in ("topk", "regtopk"):
        sparse = run(f"algo={algo}", "compress.k=0.01").summary
        assert sparse["test_accuracy"] >= dense["test_accuracy"] - 0.03
        assert sparse["bytes_sent"] * 40 <= dense["bytes_sent"]
