"""Bits per worker: what traffic.csv says of them, in tables, on axes, and in the figure that papers print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from commexp.metrics import human_bits, metric
from commexp.report.bits import BITS, bits_per_worker
from commexp.report.checked import ReadRun
from commexp.report.comparison import Comparison, as_markdown
from commexp.report.curves import draw_bits
from commexp.report.page.embed import embedded
from commexp.report.page.tables import methods_table, runs_table
from commexp.report.tables import as_text, summary_blocks
from commexp.run_folder import Run

LINREG = ["dataset=linreg", "dataset.dim=12", "dataset.samples=10", "workers=4"]
J, SIZE, ROUNDS = 12, 8, 3  # numbers of float64 in a vector
DENSE = 8 * SIZE * J  # bits


def columns(run: Run) -> pd.DataFrame:
    return ReadRun(run.folder).metrics[["round", "bytes_sent", *BITS]]


def test_what_a_table_of_exchanges_amounts_to() -> None:
    rows = [
        (0, "broadcast", "peers", 7), (1, "server", "up", 10), (1, "server", "down", 40),
        (3, "all_gather", "peers", 20), (3, "server", "down", 1), (2, "gossip", "peers", 100),
    ]  # fmt: skip
    traffic = pd.DataFrame(rows, columns=["round", "exchange", "direction", "bytes_sent"])
    found = bits_per_worker(traffic, 4, [0, 1, 2, 3, 9])
    assert found["bits_up"].tolist() == [14, 34, 234, 274, 274]
    assert found["bits_down"].tolist() == [0, 80, 80, 82, 82]
    assert found["bits_both"].tolist() == [14, 114, 314, 356, 356]
    assert bits_per_worker(traffic.iloc[:0], 4, [0, 5]).to_numpy().tolist() == [[0, 0, 0]] * 2


#: bits that a worker sends in a round, and that come back to it
BY_HAND = {
    "algo=sgd comm.exchange=all_reduce": (DENSE, 0),
    "algo=sgd comm.exchange=all_gather": (DENSE, 0),
    "algo=sgd comm.exchange=server": (DENSE, DENSE),
    "algo=sgd compress=sign comm.exchange=all_gather": (8 * (2 + 8), 0),  # 12 signs in 2 bytes, and a scale
    "algo=dpsgd gossip.rounds=2": (2 * DENSE, 0),
    "algo=localsgd algo.tau=2 participation=0.5": (DENSE / 2, DENSE / 2),  # two of four workers
}


@pytest.mark.parametrize("words", BY_HAND)
def test_bits_by_hand(words: str, run: Callable[..., Run]) -> None:
    made = run(*LINREG, *words.split(), f"rounds={ROUNDS}", "eval_every=1", "dtype=float64")
    found, (up, down) = columns(made), BY_HAND[words]
    rounds = np.arange(ROUNDS + 1)
    assert found["bits_up"].tolist() == (up * rounds).tolist()
    assert found["bits_down"].tolist() == (down * rounds).tolist()
    assert not {*BITS} & {*made.metrics.columns, *made.summary}, "metrics.csv and summary.json are as they were"


OTHERS = (
    "algo=async_sgd comm.exchange=auto", "algo=async_ps", "algo=gradient_coding straggler=bernoulli", "algo=choco",
    "algo=ef21 participation=0.5",
    "algo=sgd compress=topk comm.exchange=two_phase", "algo=sgd topology=islands islands=2", "algo=lsgd algo.tau=2",
    "algo=localsgd algo.tau=2 algo.quorum=2 comm.exchange=server straggler=bernoulli "
    "network.compute.seconds=0.01",
)  # fmt: skip


@pytest.mark.parametrize("words", OTHERS)
def test_both_ways_they_are_the_bytes_sent(words: str, run: Callable[..., Run]) -> None:
    """In every row: what a round has counted belongs to the round."""
    found = columns(run(*LINREG, *words.split(), f"rounds={ROUNDS}", "eval_every=1"))
    assert found["bits_both"].tolist() == (found["bytes_sent"] * 8 / 4).tolist()
    assert found["bits_both"].iloc[-1] > 0
    assert (found["bits_up"] + found["bits_down"]).tolist() == found["bits_both"].tolist()


@pytest.fixture
def made(run: Callable[..., Run]) -> dict[str, ReadRun]:
    """Four rounds over a server and among peers."""
    words = (*LINREG, "algo.lr=0.3", "rounds=4", "eval_every=1", "dtype=float64")
    exchanges = {"server": "comm.exchange=server", "peers": "comm.exchange=all_gather"}
    return {name: ReadRun(run(*words, word).folder) for name, word in exchanges.items()}


def test_tables_have_them(made: dict[str, ReadRun]) -> None:
    """What comes back and the sum only where something does."""
    summary = as_text(summary_blocks(made["server"]))
    assert "| up   | 3.07 kbit  |" in summary
    assert "| down | 3.07 kbit  |" in summary
    assert "| both | 6.14 kbit  |" in summary
    assert "| down " not in as_text(summary_blocks(made["peers"]))
    for names, heads in ((["server", "peers"], ["bits up", "bits down", "bits both ways"]), (["peers"], ["bits up"])):
        compared = Comparison([made[name] for name in names])
        for table in (methods_table(compared), runs_table(compared)):
            assert [head for head in table.heads if "bits" in head] == heads
        assert as_markdown(compared).count("bits") == 2 * len(heads)  # of runs, and of methods
        assert compared.methods["bits_up"].tolist() == [4 * DENSE] * len(names)
    page = embedded(Comparison([*made.values()]))
    assert {*BITS} <= {name for name, _ in page["x"]}
    assert {page["scales"][name] for name in BITS} == {"bits"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr("commexp.report.curves.save", lambda figure, path: figures.append(figure) or [path])
    return figures


def test_the_figure_of_papers(made: dict[str, ReadRun], drawn: list[Figure], tmp_path: Path) -> None:
    assert draw_bits({name: [run] for name, run in made.items()}, tmp_path / "bits")
    axes = drawn[0].axes
    assert [axis.get_xlabel() for axis in axes[2:]] == [metric(name).label for name in ("bits_up", "bits_both")]
    assert [axis.get_ylabel() for axis in axes[::2]] == ["squared gradient norm", "F(x) \N{MINUS SIGN} F*"]
    assert {axis.get_yscale() for axis in axes} == {"log"}
    assert {axis.get_xscale() for axis in axes} == {"linear"}, "no method ends far from the others"
    line = axes[0].get_lines()[0]
    assert line.get_xdata().tolist() == [t * DENSE for t in range(5)]  # type: ignore[union-attr]
    assert line.get_ydata().tolist() == made["server"].metrics["stationarity"].tolist()  # type: ignore[union-attr]
    draw_bits({"peers": [made["peers"]]}, tmp_path / "bits")
    assert len(drawn[1].axes) == 2, "nothing comes back"


def test_far_apart_both_are_seen(made: dict[str, ReadRun], drawn: list[Figure], tmp_path: Path) -> None:
    made["peers"].metrics["bits_up"] *= 10
    made["peers"].metrics.loc[4, ["stationarity", "excess_loss"]] = 0.0
    draw_bits({name: [run] for name, run in made.items()}, tmp_path / "bits")
    axis = drawn[0].axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log"), "zero has no place on the scale, and ends the line"
    assert [len(line.get_xdata()) for line in axis.get_lines()[:2]] == [4, 3]  # type: ignore[arg-type]


def test_no_figure_without_the_norm_or_the_bits(run: Callable[..., Run], drawn: list[Figure], tmp_path: Path) -> None:
    images = ReadRun(run("rounds=1", "model.width=8", "workers=2", "batch_size=2").folder)
    assert "stationarity" not in images.metrics
    assert draw_bits({"images": [images]}, tmp_path / "bits") == []
    old = run(*LINREG, "rounds=1")
    (old.folder / "traffic.csv").unlink()
    assert not {*BITS} & {*ReadRun(old.folder).metrics.columns, *ReadRun(old.folder).summary}
    assert draw_bits({"old": [ReadRun(old.folder)]}, tmp_path / "bits") == []


@pytest.mark.parametrize("text", ["", "round,direction,bytes_sent\n1,up,x\n", "round,bytes_sent\n1,2\n", "a\n1,2\n"])
def test_traffic_that_tells_no_bits(text: str, made: dict[str, ReadRun]) -> None:
    """It is named as what cannot be read, not the metrics."""
    (made["peers"].folder / "traffic.csv").write_text(text)
    again = ReadRun(made["peers"].folder)
    assert not {*BITS} & {*again.metrics.columns}
    assert again.problem.startswith("traffic.csv") or not again.problem


def test_how_bits_are_written() -> None:
    assert [human_bits(n) for n in (0, 999, 1234, 5.67e6, 8e9)] == [
        "0 bit",
        "999 bit",
        "1.23 kbit",
        "5.67 Mbit",
        "8 Gbit",
    ]
    assert metric("bits_up").plus_minus(1234567, 56789) == "1.23 Mbit ± 0.057"
