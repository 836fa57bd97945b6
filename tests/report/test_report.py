"""Tables and figures from run folders."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pandas as pd
import pytest
from matplotlib.figure import Figure

from commexp.cli.report import compare
from commexp.experiment.summary import tell
from commexp.metrics import human_bytes, metric, number
from commexp.report.checked import ReadRun
from commexp.report.curves import draw_curves
from commexp.report.phases import draw_phases
from commexp.report.style import compact
from commexp.report.sweep import latex, short
from commexp.report.tables import (
    PHASES,
    as_text,
    compare_markdown,
    labels,
    markdown,
    phase_seconds,
    summary_blocks,
)
from commexp.report.target import Target, common
from commexp.run_folder import Run, on_clocks

pytestmark = pytest.mark.drawn


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures of curves, laid out but not written."""
    made: list[Figure] = []

    def keep(figure: Figure, path: Path) -> list[Path]:
        figure.draw_without_rendering()
        made.append(figure)
        return []

    monkeypatch.setattr("commexp.report.curves.save", keep)
    return made


SHORT = ("rounds=10", "eval_every=5", "model.width=8", "batch_size=2")


def test_a_cost_has_its_spread_in_the_same_unit() -> None:
    spreads = (0.0, float("nan"), 56_789.0, 130_000.0)
    assert [human_bytes(847_000, s) for s in spreads] == ["847 kB", "847 kB", "847 kB ± 57", "847 kB ± 130"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (5e15, "5e+03 TB")]
)
def test_bytes_as_people_read_them(count: float, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(("value", "text"), [(0.001, "0.001"), (1e-10, "1e-10"), (100, "100"), (1e5, "1e5")])
def test_compact_numbers(value: float, text: str) -> None:
    assert compact(value) == text


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["0.027182818", "0.000314159", "0.5"], ["0.0272", "0.000314", "0.5"]),
        (["0.27182818", "0.27184"], ["0.27183", "0.27184"]),
        (["12345678", "0.1", "1e-4", "1000.0"], ["12345678", "0.1", "1e-4", "1000.0"]),
        (["topk", "-1.23456e-05", "123456789.1"], ["topk", "-1.23e-05", "1.23e+08"]),
        (["0.123456", "0.123456"], ["0.123", "0.123"]),
    ],
)
def test_settings_have_three_digits_or_as_many_as_tell_them_apart(values: list[str], shown: list[str]) -> None:
    assert short(values) == shown


def test_markdown_is_aligned() -> None:
    assert markdown(["a", "bb"], [["xyz", "1"]]).splitlines() == ["| a   | bb |", "| --- | -- |", "| xyz | 1  |"]


def test_latex_escapes() -> None:
    text = latex(["a_b"], [["5%"], ["1 ± 2"]])
    assert "a\\_b" in text
    assert "5\\%" in text
    assert "1 $\\pm$ 2" in text


def test_missing_numbers_are_dashes() -> None:
    assert math.isnan(number(None))
    assert metric("train_loss").show("nan") == "-"
    assert metric("test_accuracy").show(0.975) == "97.50%"


def test_a_target_is_reached_in_the_first_row_that_is_as_good() -> None:
    table = pd.DataFrame({"test_accuracy": [0.1, 0.96, 0.9, 0.97], "bytes_sent": [1, 2, 3, 4]})
    row = Target(0.95).first(table)
    assert row is not None
    assert row["bytes_sent"] == 2
    assert Target(0.99).first(table) is None
    assert Target(0.5).first(table.drop(columns="test_accuracy")) is None


def test_a_target_loss_is_one_of_the_test_or_else_of_the_training() -> None:
    table = pd.DataFrame({"train_loss": [3.0, 1.4, 1.6], "test_loss": [3.0, 1.6, 1.5], "bytes_sent": [1, 2, 3]})
    target = Target(1.5, is_loss=True)
    both, train = target.first(table), target.first(table.drop(columns="test_loss"))
    assert both is not None
    assert both["bytes_sent"] == 3
    assert train is not None
    assert train["bytes_sent"] == 2
    assert Target(1.3, is_loss=True).first(table) is None


def test_the_target_of_a_table_is_the_one_that_all_rows_have() -> None:
    table = pd.DataFrame({"target": [1.5, math.nan, 1.5], "target_is_loss": [True, math.nan, True]})
    assert common(table) == Target(1.5, is_loss=True)
    table.loc[1] = 0.9, False
    assert common(table) is None
    assert common(table.loc[[1]]) == Target(0.9)


def test_a_runs_summary_says_what_it_cost(run: Callable[..., Run]) -> None:
    result = run(*SHORT, "compress=topk")
    text = as_text(summary_blocks(result, Target(0.999)))
    payload = result.summary["payload_bytes"]
    assert human_bytes(10 * 8 * payload) in text
    assert f"1/{result.summary['parameters'] * 4 / payload:.3g} of dense" in text
    assert "not reached" in text
    assert "all_gather" in text


def test_a_target_loss_in_tables_pages_and_replays(
    run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("dataset=linreg", "dataset.dim=10", "dataset.samples=20", "workers=2", "rounds=30", "eval_every=1")
    results = [run(*small, f"compress={c}") for c in ("none", "topk")]
    target = Target(float(results[0].metrics["train_loss"].iloc[12]), is_loss=True)
    named, rows = f"loss {target.value:.4g}", [target.first(result.metrics) for result in results]
    assert rows[0] is not None
    assert rows[0]["round"] == 12
    text = as_text(summary_blocks(results[0], target))
    assert f"| to {named} " in text
    assert (
        f"| {human_bytes(rows[0]['bytes_sent'])} sent, {rows[0]['sim_seconds']:.4g} s, round 12 (communication only) "
        in text
    )
    folders = [result.folder for result in results]
    compare(folders, tmp_path / "report", [], target)
    (head, _, dense, _) = (tmp_path / "report" / "comparison.md").read_text().split("\n\n")[2].splitlines()
    cells = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (head, dense)), strict=True))
    assert cells[f"sent to {named}"] == human_bytes(rows[0]["bytes_sent"])
    assert cells[f"virtual s to {named}, communication only"] == f"{rows[0]['sim_seconds']:.4g}"
    assert f"bytes to {named}" in (tmp_path / "report" / "index.html").read_text()
    capsys.readouterr()
    compare(folders, tmp_path / "replay", ["network=ethernet_1g"], target)
    (head, _, dense, _) = capsys.readouterr().out.split("\n\n")[1].splitlines()
    cells = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (head, dense)), strict=True))
    assert cells[f"to {named}, communication only"] == f"{rows[0]['sim_seconds']:.4g} s", "on its own network"
    assert cells["sent until then"] == human_bytes(rows[0]["bytes_sent"])


def test_virtual_time_says_what_it_counts(
    run: Callable[..., Run],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of four runs two count computing; the notes are told once, however many runs they are of."""
    tell.cache_clear()
    monkeypatch.setattr("commexp.cli.report._drawn", lambda *_: [])
    small = ("dataset=linreg", "dataset.dim=10", "dataset.samples=20", "workers=2", "rounds=4", "eval_every=2")
    timed = ("network.compute.seconds=0.02",)
    bare, again, dense, sparse = (
        run(*small, *words) for words in ([], ["seed=1"], timed, (*timed, "compress=topk", "network=mobile"))
    )
    told = capsys.readouterr().err
    assert told.count("note: computing takes no time on the virtual clock; network.compute=h100 or") == 1
    assert told.count("note: encoding and decoding take no time") == 1
    assert as_text(summary_blocks(bare)).endswith("network.compute=h100 or network.compute.seconds=0.02 counts it\n")
    assert as_text(summary_blocks(sparse)).endswith("network.compute.coding=measured counts them\n")
    assert "note" not in as_text(summary_blocks(dense))
    assert re.search(r"\| virtual clock +\| \S+ s \(communication only\) ", as_text(summary_blocks(again)))
    assert re.search(r"\| virtual clock +\| \S+ s +\|", as_text(summary_blocks(dense)))
    assert labels([bare, again]) == ["dense", "dense"]
    assert labels([bare, sparse]) == ["dense (communication only)", "topk k=0.01"]
    assert [on_clocks(each) for each in ([bare, again], [dense, sparse], [bare, dense])] == [
        "communication only", "", "some with communication only",
    ]  # fmt: skip
    target = Target(1e9, is_loss=True)
    for name, runs, said in (
        ("one", [bare, again], ", communication only"),
        ("two", [dense, sparse], ""),
        ("mix", [bare, sparse], ", some with communication only"),
    ):
        compare([one.folder for one in runs], tmp_path / name, [], target)
        assert f"virtual s to loss 1e+09{said} |" in (tmp_path / name / "comparison.md").read_text()
        page = (tmp_path / name / "index.html").read_text()
        assert f"virtual time to loss 1e+09{said}<" in page
        assert f'"time on the virtual clock{said}"' in page


@pytest.mark.parametrize(
    ("compute", "counts"),
    [
        ({"kind": "constant", "seconds": 0.0}, (False, False)),
        ({"kind": "lognormal", "seconds": 0.1}, (True, False)),
        ({"kind": "constant", "seconds": 0.0, "flops": 312.0}, (True, False)),
        ({"kind": "constant", "seconds": 0.0, "coding": 2.0}, (False, True)),
        ({"kind": "measured", "seconds": 0.0}, (True, True)),
        ({"kind": "trace", "seconds": 0.0}, (True, False)),
        (None, (True, True)),
    ],
)
def test_what_a_folder_counts(compute: dict[str, object] | None, counts: tuple[bool, bool], tmp_path: Path) -> None:
    """Also one from before there was a device or coding; what says nothing is taken to count all."""
    one = Run(tmp_path)
    assert one.clock_counts == (True, True)
    one.write_config({"network": {"compute": compute}})
    assert one.clock_counts == counts
    one.set_meta(clock="wall")
    assert one.clock_counts == (True, True)


def test_phases_are_medians_without_the_first_rounds(tmp_path: Path) -> None:
    one = Run(tmp_path)
    seconds = [[9.0, 9.0, 9.0, 0.3, 0.1, 0.2, 0.2, 7.0], [9.0, 1.0]]
    for compute, expected in zip(seconds, (0.2, 1.0), strict=True):
        rows = [
            {"round": t, **{f"{phase}_seconds": value / 2 for phase in PHASES}}
            for t, value in enumerate(compute)
            for _ in range(2)
        ]
        one.write_rows("traffic", rows)
        assert phase_seconds(one) == pytest.approx(dict.fromkeys(PHASES, expected))


def test_the_page_says_what_has_stopped_a_run(run: Callable[..., Run], tmp_path: Path) -> None:
    stopped = run(*SHORT, "stop.bytes=1")
    compare([stopped.folder], tmp_path / "report", [], None)
    assert f"stopped by {stopped.summary['stopped_by']}" in (tmp_path / "report" / "index.html").read_text()


def test_a_target_that_is_no_number_is_a_problem_of_the_folder(run: Callable[..., Run]) -> None:
    made = run(*SHORT, "target_loss=1.5")
    assert ReadRun(made.folder).problem == ""
    made.write_config({**made.config, "target_loss": "low"})
    assert ReadRun(made.folder).problem.startswith("config.yaml cannot be read: could not convert string to float")


def test_comparison_has_a_row_per_run_and_readable_pictures(run: Callable[..., Run], tmp_path: Path) -> None:
    results = [run(*SHORT, f"compress={c}") for c in ("none", "topk")]
    table = compare_markdown(results)
    assert len(table.splitlines()) == 2 + len(results)
    written = draw_curves({name: [r] for name, r in zip(labels(results), results, strict=True)}, tmp_path / "curves")
    assert [p.suffix for p in written] == [".png", ".pdf"]
    image = matplotlib.image.imread(written[0])
    assert image.shape[1] >= 1200
    assert float(image[..., :3].std()) > 0.05, "the picture is blank"


def write_metrics(run: Run, last: int, **columns: float) -> Run:
    """A row for each of rounds 0, ..., 10; every count grows by ``last``, times what ``columns`` say, in each."""
    scale = {"step": 1.0, "bytes_sent": 1.0, "sim_seconds": 1.0, "wall_seconds": 1.0, **columns}
    loss = [{"train_loss": 0.9**r, "objective": 0.1 + 0.9**r} for r in range(11)]
    run.write_rows("metrics", [{**{k: v * r * last for k, v in scale.items()}, **loss[r]} for r in range(11)])
    return run


@pytest.mark.parametrize("work", ["step", "samples_per_node", "calls"])
def test_curves_are_drawn_against_what_all_runs_count(work: str, tmp_path: Path, drawn: list[Figure]) -> None:
    one, two = (write_metrics(Run(tmp_path / name), 10, **{work: 2.0}) for name in ("one", "two"))
    draw_curves({"one": [one], "two": [two]}, tmp_path / "curves")
    columns = [work, "bytes_sent", "sim_seconds", *(["wall_seconds"] if work == "calls" else [])]
    assert [axis.get_xlabel() for axis in drawn[-1].axes] == [metric(x).axis for x in columns]
    assert [axis.get_ylabel() for axis in drawn[-1].axes] == ["objective"] + [""] * (len(columns) - 1)
    assert {axis.get_yscale() for axis in drawn[-1].axes} == {"linear"}
    plain = Run(tmp_path / "plain")
    plain.write_rows("metrics", one.metrics.drop(columns=["objective", work]).assign(step=1).to_dict("records"))
    two.write_rows("metrics", two.metrics.assign(step=range(11)).to_dict("records"))
    draw_curves({"two": [two], "plain": [plain]}, tmp_path / "curves")
    labels = {axis.get_xlabel() for axis in drawn[-1].axes}, {axis.get_ylabel() for axis in drawn[-1].axes}
    assert metric("step").axis in labels[0]
    assert labels[1] == {"train loss", "objective", ""}


def test_lines_that_end_far_apart_are_both_seen(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = {name: [write_metrics(Run(tmp_path / name), last)] for name, last in (("one", 10), ("two", 100))}
    draw_curves(runs, tmp_path / "curves")
    assert [axis.get_xscale() for axis in drawn[-1].axes] == ["log"] * 3
    draw_curves({"one": runs["one"]}, tmp_path / "curves")
    assert [axis.get_xscale() for axis in drawn[-1].axes] == ["linear", "log", "linear"]


def test_runs_are_named_by_what_tells_them_apart(run: Callable[..., Run]) -> None:
    results = [
        run(*SHORT, *overrides.split())
        for overrides in ("compress=none", "compress=topk", "compress=topk seed=1", "compress=topk algo.lr=0.25")
    ]
    assert labels(results) == ["dense", "topk k=0.01 lr=0.5", "topk k=0.01 lr=0.5", "topk k=0.01 lr=0.25"]


def test_keys_that_differ_together_are_not_all_named(run: Callable[..., Run]) -> None:
    results = [
        run(*SHORT, "compress=topk", *overrides.split())
        for overrides in ("algo.momentum=0.5", "algo.lr=0.25 algo.momentum=0.9", "algo.lr=0.1 algo.momentum=0.9")
    ]
    assert labels(results) == [f"topk k=0.01 lr={lr}" for lr in (0.5, 0.25, 0.1)]


def test_phases_of_a_round_are_told_and_drawn(run: Callable[..., Run], tmp_path: Path) -> None:
    result = run(*SHORT, "compress=topk", figures=True)
    phases = phase_seconds(result)
    assert list(phases) == ["compute", "encode", "wait", "transfer", "decode"]
    assert phases["wait"] == phases["transfer"] == 0, "one process"
    assert min(phases["compute"], phases["encode"], phases["decode"]) > 0
    assert sum(phases.values()) <= result.summary["wall_seconds"]
    assert "| ms of a round    | compute " in (result.folder / "summary.md").read_text()
    written = draw_phases({"one": [result], "two": [result, result]}, tmp_path / "phases")
    assert [p.name for p in written] == ["phases.png", "phases.pdf"]
    assert draw_phases({"none": [Run(tmp_path)]}, tmp_path / "nothing") == []
