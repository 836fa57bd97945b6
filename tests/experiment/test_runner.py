"""One run: what it leaves, how it ends, how it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from registry import interrupted, options, plan, untimed
from torch import Tensor

from commexp.algorithms import SGD, Algorithm
from commexp.comm import AGGREGATIONS
from commexp.comm.exchanges import Aggregation, Bytes
from commexp.compressors import Message
from commexp.problems.module_problem import ModuleProblem
from commexp.run_folder import Run

FEW = ("rounds=12", "eval_every=4", "batch_size=4", "algo.schedule.warmup=0")
SHORT = (*FEW, "model.width=8", "dataset.test=0.8", "dataset.validation=20")  # evaluating 1,797 images takes longer
SMALL = ("model=mlp", "model.hidden=[16]", "algo.lr=0.01")


@pytest.mark.drawn
def test_what_a_run_leaves(run: Callable[..., Run]) -> None:
    result = run(*SHORT, "algo=regtopk", figures=True)
    names = {str(p.relative_to(result.folder)) for p in result.folder.rglob("*") if p.is_file()} - {".lock"}
    assert names == {
        "config.yaml", "meta.json", "metrics.csv", "traffic.csv", "rounds.csv", "summary.json", "summary.md", "run.log",
        "partition.csv", "figures/curves.png", "figures/curves.pdf", "figures/partition.png", "figures/partition.pdf",
    }  # fmt: skip
    assert list(result.metrics.columns) == [
        "round", "step", "epoch", "samples", "wall_seconds", "sim_seconds", "train_loss", "train_accuracy",
        "test_loss", "test_accuracy", "bytes_info", "bytes_sent", "bytes_wire",
    ]  # fmt: skip
    assert result.meta["status"] == "completed"
    assert {"command", "seed", "torch", "commexp", "git_commit", "machine", "workers", "processes"} <= set(result.meta)
    assert result.config["algo"]["_target_"] == "commexp.algorithms.SGD"


def by_hand(j: int) -> dict[str, tuple[int, float]]:
    """Bytes that one worker sends in a round, and bits of information, for J = ``j`` below 65,535."""
    k, tenth = round(0.01 * j), round(0.1 * j)
    sparse = 4 * k + 1 + k + -(-j // 255)  # values, header, offsets and counts of blocks of 255
    index_bits = math.log2(math.comb(j, k))
    eighth, buckets, blocks, few = -(-j // 8), -(-j // 512), -(-j // 256), -(-k // 64)
    return {
        "none": (4 * j, 32 * j),
        "fp16": (2 * j, 16 * j),
        "bf16": (2 * j, 16 * j),
        "topk": (sparse, 32 * k + index_bits),
        "regtopk": (sparse, 32 * k + index_bits),
        "randk": (4 * tenth, 32 * tenth),
        "sign": (eighth + 4, j + 32),
        "onebit": (eighth + 4, j + 32),
        "qsgd": (-(-j // 2) + 4 * buckets, j * math.log2(15) + 32 * buckets),
        "terngrad": (-(-j // 5) + 4, j * math.log2(3) + 32),
        "natural": (j + eighth, 9 * j),
        "int8": (j + 4 * blocks, 8 * j + 32 * blocks),
        "fp8": (j + 2 * blocks, 8 * j + 16 * blocks),
        "fp4": (-(-j // 2) + 2 * blocks, 4 * j + 16 * blocks),
        "kbit": (-(-j // 4) + 2 * blocks, 8 * -(-j // 4) + 16 * blocks),
        "topk_qsgd": (sparse - 4 * k + -(-k // 2) + 4 * few, index_bits + k * math.log2(15) + 32 * few),
    }


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every buffer of every message handed to the exchange."""
    found: list[int] = []

    def weighing(honest: Callable[..., Bytes]) -> Callable[..., Bytes]:
        def load(self: Aggregation, message: Message, *others: Any) -> Bytes:
            for name, buffer in message.buffers.items():
                rows = message.lengths.get(name, [buffer[0].numel()] * len(buffer))
                found.append(sum(rows) * buffer.element_size())
            return honest(self, message, *others)

        return load

    for kind in {type(exchange) for exchange in AGGREGATIONS.values()}:
        monkeypatch.setattr(kind, "load", weighing(kind.load))
    return found


@pytest.mark.parametrize("codec", options("compress"))
def test_bytes_by_hand_and_by_weight_and_by_layers(codec: str, run: Callable[..., Run], weighed: list[int]) -> None:
    """12 rounds of 8 workers; what the messages weigh is what they said they were and what the ledger says. Then three
    rounds of layers, which weigh otherwise."""
    gathered = ["comm.exchange=all_gather"] * (codec == "fp8")  # in two phases its aggregate is sent as well
    result = run(*SHORT, "eval_every=12", f"compress={codec}", "compress.scope=model", *gathered)
    j, last = result.summary["parameters"], result.metrics.iloc[-1]
    if codec in by_hand(j):
        payload, bits = by_hand(j)[codec]
        assert last["bytes_sent"] == 12 * 8 * payload
        assert last["bytes_info"] == pytest.approx(12 * 8 * bits / 8)
        assert result.summary["payload_bytes"] == payload
    else:
        of_tensors = "powersgd", "chunked", "dct_chunked", "chunked_kbit", "sparseloco"
        assert codec in ("threshold", *of_tensors), "give it a formula"
        assert last["bytes_sent"] <= 12 * 8 * result.summary["payload_bytes"]
    assert last["bytes_sent"] == sum(weighed) > 0
    factor = 2 * 7 / 8 if result.summary["exchange"] == "all_reduce" else 7
    assert last["bytes_wire"] == 12 * (last["bytes_sent"] // 12 * factor) or codec == "threshold"
    assert result.traffic["bytes_sent"].sum() == last["bytes_sent"]
    assert result.summary["dense_bytes"] == 12 * 8 * 4 * j
    assert last["samples"] == 12 * 8 * 4
    assert last["epoch"] == pytest.approx(12 * 8 * 4 / 339)
    if codec == "powersgd":
        return
    short = (*SHORT, "rounds=3", "eval_every=3", f"compress={codec}")
    layers = run(*short, "compress.scope=layer", "compress.whole_below=50")
    assert layers.status == "completed"
    assert layers.name != plan(*short).name
    if codec not in ("none", "threshold"):
        assert layers.summary["bytes_sent"] / 3 != last["bytes_sent"] / 12


def test_the_virtual_clock_adds_up(run: Callable[..., Run]) -> None:
    result = run(*SHORT, "compress=topk", "network=ethernet_100m", "network.compute.seconds=0.5")
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


@pytest.mark.parametrize(
    ("problem", "codec", "momentum"),
    [(SHORT, "none", 0.0), (SHORT, "topk", 0.9)] + [((*FEW, *SMALL), c, 0.9) for c in options("compress")],
    ids=lambda value: ("mlp" if "model=mlp" in value else "resnet") if isinstance(value, tuple) else None,
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    problem: tuple[str, ...], codec: str, momentum: float, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (*problem, f"compress={codec}", f"algo.momentum={momentum}")
    whole = run(*overrides)
    tables = [untimed(whole.folder / f"{name}.csv") for name in ("metrics", "traffic")]
    traffic = whole.traffic.copy()
    with interrupted(after=6):
        halted = run(*overrides, "rerun=true")
    assert halted.status == "interrupted"
    assert halted.metrics["round"].max() == 4
    assert (halted.summary["round"], halted.summary["evaluated_round"]) == (6, 4)
    assert halted.summary["bytes_sent"] == traffic[traffic["round"] <= 6]["bytes_sent"].sum()
    assert halted.summary["dense_bytes"] == 6 * 8 * 4 * halted.summary["parameters"]
    if problem == SHORT:
        with monkeypatch.context() as patch:  # the resumed run dies in its turn, in round 9
            patch.setattr("commexp.algorithms.SGD.round", dies_in_round(8))
            with pytest.raises(KeyboardInterrupt):
                run(*overrides)
    resumed = run(*overrides)
    assert resumed.status == "completed"
    assert "resumed after round 6" in (resumed.folder / "run.log").read_text()
    assert not (resumed.folder / "checkpoints").exists()
    assert [untimed(resumed.folder / f"{name}.csv") for name in ("metrics", "traffic")] == tables


def test_a_checkpoint_without_its_tables_is_not_used(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupted(after=6):
        halted = run(*SHORT)
    (halted.folder / "traffic.csv").unlink()
    again = run(*SHORT)
    assert again.status == "completed"
    assert "resumed" not in (again.folder / "run.log").read_text()
    assert list(again.metrics["round"]) == [0, 4, 8, 12]


def dies_in_round(number: int, method: type[Algorithm] = SGD) -> Callable[..., None]:
    honest = method.round

    def dies(self: Algorithm, t: int) -> None:
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


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entries of worker 3's gradient are not finite in round 3."""
    batch, loss_and_grad = ModuleProblem.batch, ModuleProblem.loss_and_grad

    def poisons(
        self: ModuleProblem, x: Tensor, numbered: tuple[int, object], ready: object = None
    ) -> tuple[Tensor, Tensor]:
        losses, grad = loss_and_grad(self, x, numbered[1])
        if numbered[0] == 2:
            grad[3, 1], grad[3, -1] = math.nan, math.inf
        return losses, grad

    monkeypatch.setattr(ModuleProblem, "batch", lambda self, step: (step, batch(self, step)))
    monkeypatch.setattr(ModuleProblem, "loss_and_grad", poisons)


@pytest.mark.usefixtures("poisoned")
def test_a_gradient_that_is_not_finite_stops_the_run(run: Callable[..., Run], capsys: pytest.CaptureFixture) -> None:
    result = run(*SHORT, "eval_every=1")
    line = "round 3, worker 3: the gradient of 0.weight holds NaN; on_nonfinite=skip or zero goes on"
    assert result.status == result.summary["status"] == "diverged"
    assert result.meta["error"] == line
    assert line in (result.folder / "run.log").read_text()
    assert "Traceback" not in (result.folder / "run.log").read_text()
    assert f"commexp: {line}\n" in capsys.readouterr().err
    assert list(result.metrics["round"]) == [0, 1, 2]
    assert result.traffic["round"].max() == 2
    assert (result.summary["round"], result.summary["nonfinite_gradients"]) == (2, 1)
    assert not (result.folder / "checkpoints").exists()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("policy", "zeros"), [("skip", "all"), ("zero", 2)])
def test_a_run_may_go_on_without_what_is_not_finite(
    policy: str, zeros: object, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(*SHORT, f"on_nonfinite={policy}")
    summary = result.summary
    assert summary["status"] == "completed"
    assert math.isfinite(summary["train_loss"])
    assert summary["nonfinite_gradients"] == 1
    zeros = summary["parameters"] if zeros == "all" else zeros
    told = f"WARNING round 3, worker 3: the gradient of 0.weight holds NaN; {zeros} of its {summary['parameters']}"
    assert (result.folder / "run.log").read_text().count(told) == 1
    with interrupted(after=6):  # the count outlives the process
        assert run(*SHORT, f"on_nonfinite={policy}", "rerun=true").status == "interrupted"
    resumed = run(*SHORT, f"on_nonfinite={policy}")
    assert "resumed after round 6" in (resumed.folder / "run.log").read_text()
    assert resumed.summary["nonfinite_gradients"] == 1
    assert resumed.summary["train_loss"] == summary["train_loss"]


def test_the_summary_sets_what_was_sent_against_its_information(run: Callable[..., Run]) -> None:
    result = run(*SHORT, "compress=topk", figures=True)
    summary = result.summary
    ratio = summary["sent_over_info"]
    assert ratio == summary["bytes_sent"] / summary["bytes_info"] > 1
    assert summary["nonfinite_gradients"] == 0
    row = next(line for line in (result.folder / "summary.md").read_text().splitlines() if "sent / information" in line)
    assert f" {ratio:.3g} " in row
    assert run(*SHORT).summary["sent_over_info"] == 1.0


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
    overrides = ("algo=topk", "rounds=6", "eval_every=3", "model.width=8", "batch_size=4", "dtype=float64")
    fast, slow = (run(*overrides, f"comm.deterministic={d}").metrics["train_loss"] for d in ("false", "true"))
    assert (fast - slow).abs().max() < 1e-9


@pytest.mark.slow
def test_digits_dense_and_sparse_reach_the_accuracy(run: Callable[..., Run]) -> None:
    """Dense in half the rounds of the default, the others in a quarter of them."""
    dense = run("rounds=250", "eval_every=250").summary
    assert dense["test_accuracy"] >= 0.97
    for algo in ("topk", "regtopk"):
        sparse = run("rounds=130", "eval_every=130", f"algo={algo}", "compress.k=0.01").summary
        assert sparse["test_accuracy"] >= dense["test_accuracy"] - 0.03
        assert sparse["bytes_sent"] / 130 * 40 <= dense["bytes_sent"] / 250
