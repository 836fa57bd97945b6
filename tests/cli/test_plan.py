"""commexp-plan: its tables, its files, its mistakes; runs that are joined."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import status_of

from commexp.cli.plan import SETTINGS_HELP, main
from commexp.experiment.replay import Replay
from commexp.report.tables import as_text
from commexp.report.utilisation import LEVELS, PlanRow, Point, bandwidth_text, merged, plan_tables, recommendation
from commexp.run_folder import Run

BILLION = ["--parameters", "1e9", "--workers", "8", "network=ethernet_1g", "network.compute=h100"]
Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """The exit status of commexp-plan, and what it prints."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        status = status_of(main, ["commexp-plan", *words], monkeypatch)
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return call


def test_a_billion_parameters(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are those of docs/plan.md, by hand: S = 4e9 bytes; 2 (7/8) S / 125e6 + 14e-4 = 56.0014 s; 6 P B /
    (989.4e12 x 0.42) = 1.8925 s; 19,074 steps."""
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = told(*BILLION, "--out", "plan")
    assert (status, err) == (0, "")
    assert "19,074 local steps of 131,072 tokens (2e+10 in all)" in " ".join(out.split())
    rows = {cells[0]: cells[1:] for cells in _costs(out)}
    gradient = 6 * 1e9 * 2**17 / (989.4e12 * 0.42)
    exchange = 2 * 7 / 8 * 4e9 / 125e6 + 14e-4
    hours = 19_074 * (gradient + exchange) / 3600
    busy = f"{100 * gradient / (gradient + exchange):.3g} %"
    assert rows["dense"] == ["4 GB", "76.3 TB", f"{exchange:.3g} s", busy, f"{hours:.3g}"]
    local = 19_074 * gradient / (19_074 * gradient + 191 * exchange)  # the last of its rounds is shorter
    assert rows["diloco tau=100"][2:4] == ["56 s", f"{100 * local:.3g} %"]
    assert "topk, regtopk k=0.01" in rows
    assert rows["demo k=32"][0].startswith("~")
    assert "Recommended: streaming_diloco tau=100 fragments=8 delay=5, the first of" in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines())
    with open(tmp_path / "plan" / "plan.csv", encoding="utf-8") as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    assert float(table["dense"]["hours"]) == pytest.approx(hours, rel=1e-9)
    assert float(table["dense"]["bytes_sent"]) == 19_074 * 4e9
    assert float(table["dense"]["bytes_wire"]) == pytest.approx(19_074 * 2 * 7 / 8 * 4e9)
    needed = 2 * 7 / 8 * 4e9 * 8e-6 / (gradient / 0.9 - gradient - 14e-4)
    assert float(table["dense"]["mbit_for_90"]) == pytest.approx(needed, rel=1e-6)
    with open(tmp_path / "plan" / "utilisation.csv", encoding="utf-8") as file:
        shares = [float(row["utilisation"]) for row in csv.DictReader(file) if row["method"] == "dense"]
    assert shares == sorted(shares)
    assert {p.name for p in (tmp_path / "plan").iterdir()} == {
        "plan.md", "plan.csv", "utilisation.csv", "utilisation.png", "utilisation.pdf",
    }  # fmt: skip


def _costs(out: str) -> list[list[str]]:
    """The cells of the first table, row by row."""
    lines = out.split("| method")[1].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_settings_of_ones_own_stand_beside_the_baselines(told: Told) -> None:
    words = ["dataset=linreg", "dataset.dim=40", "dataset.samples=10", "steps=60", "network.compute.seconds=0.001"]
    status, out, _ = told(*words, "algo=diloco", "algo.tau=5,20", "workers=2,4")
    assert status == 0
    names = [cells[0] for cells in _costs(out)]
    each = ["dense", "fp16", "diloco tau=5", "diloco tau=20"]
    assert sorted(names) == sorted(f"{name} workers={n}" for name in each for n in (2, 4))
    assert "40 parameters, 2 workers, 60 local steps" in out


def test_without_a_device_it_is_communication_alone(told: Told) -> None:
    status, out, _ = told("--parameters", "1e6", "compress=topk")
    assert status == 0
    said = "Communication only: nothing says how long a gradient takes; give network.compute=h100"
    assert said in " ".join(out.split())
    assert re.search(r"\| topk +\| .* \| - +\|", out)
    assert "busy for" not in out


def test_runs_are_joined(told: Told, run: Callable[..., Run]) -> None:
    small = ["dataset=linreg", "dataset.dim=20", "dataset.samples=10", "workers=4", "rounds=40", "eval_every=4"]
    runs = [run(*small, *codec, "target_loss=250") for codec in (["compress=fp16"], ["compress=topk", "compress.k=2"])]
    words = [*small, "network=mobile", "network.compute.seconds=0.01", "compress=topk", "compress.k=2"]
    status, out, err = told(*words, "--from", *(str(one.folder) for one in runs), "missing")
    assert (status, err) == (0, "")
    seconds = Replay(runs[1]).seconds(_network(words))
    metrics = runs[1].metrics
    first = int((metrics["train_loss"] <= 250).to_numpy().argmax())
    assert metrics["train_loss"].iloc[first] <= 250
    assert re.search(rf"\| topk k=2 +\| {seconds[first] / 3600:.3g} ", out), out
    advice = r"Recommended: (topk k=2|fp16), the first to reach loss 250 at 50 Mbit/s, in \S+ h with .* \(one run\)\."
    assert re.search(advice, " ".join(out.split()))
    assert "Left out: missing: " in out
    status, _, err = told(*words, "--from", str(runs[0].folder), "--target", "0.9")
    assert status == 0, err


def _network(words: list[str]) -> object:
    from registry import plan

    return plan(*words).network


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--parameters", "lots"], "argument --parameters: invalid"),
        (["--parameters", "1.5"], "--parameters=1.5: not a whole number"),
        (["--tokens", "1e9"], "--tokens=1e+09: goes with --parameters"),
        (["--target", "0.9"], "--target: says what runs are to reach; give --from RUN, too"),
        (["--parameters", "1e6", "network=carrier_pigeon"], "network=carrier_pigeon: no such option"),
        (["--parameters", "1e6", "compress.k=0.1"], "compress.k=0.1: compress=none has no 'k'"),
        (["--parameters", "1e6", "algo=async_ps"], "algo=async_ps: who comes first decides"),
        (["--parameters", "1e6", "--from", "nowhere"], "--from=nowhere: "),
        (["--parameters", "1e6", "networks=mobile"], "networks=mobile: no such key"),
        (["--bandwidth", "3"], "unrecognized arguments: --bandwidth"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_mistakes(words: list[str], wrong: str, told: Told, tmp_path: Path) -> None:
    status, out, err = told(*words)
    assert status == 2, out
    (line,) = err.splitlines()
    assert line.startswith(f"commexp: error: {wrong}")
    assert not [*tmp_path.iterdir()]


def test_help_fits_a_screen(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    status, out, _ = told("--help")
    assert status == 0
    assert SETTINGS_HELP in out
    assert len(out.splitlines()) <= 48
    assert all(len(line) <= 120 for line in out.splitlines())


def test_alone_a_gradient_is_measured(told: Told) -> None:
    status, out, _ = told("--probe", "dataset=linreg", "dataset.dim=40", "dataset.samples=10", "compress=fp16")
    assert status == 0
    assert re.match(r"Measured here: network.compute.seconds=\S+\n", out)


# Tables from rows.


def row(name: str, share: float | None, **values: object) -> PlanRow:
    curve = [Point(100.0, share, 1.0), Point(1000.0, share, 1.0)]
    given = {"setting": "", "estimates": (), "step_bytes": 4e6, **values}
    needs = dict.fromkeys(LEVELS, 1e4 if share else None)
    return PlanRow((name,), steps=10, sent=4e7, wire=8e7, exchange=0.02, utilisation=share, hours=1.5, needs=needs,
                   curve=curve, **given)  # type: ignore[arg-type]  # fmt: skip


def test_methods_that_send_the_same_in_the_same_time_share_a_row() -> None:
    rows = merged([row("topk", 0.5, setting="k=0.1"), row("sign", 0.5), row("regtopk", 0.5, setting="k=0.1")])
    assert [r.name for r in rows] == ["topk, regtopk k=0.1", "sign"]
    assert len(merged([row("a", 0.5), row("b", 0.6)])) == 2


def test_what_is_recommended() -> None:
    rows = [row("dense", 0.2), row("fp16", 0.92), row("diloco", 0.99)]
    assert recommendation(rows, 1000).startswith("fp16, the first of those listed, which go from small")
    assert "busy for 90% of the time or more at 1 Gbit/s" in recommendation(rows, 1000)
    assert "the accuracy is not known" in recommendation(rows, 1000)
    assert recommendation(rows[:1], 50).startswith("dense, which comes closest with 20 %: nothing is busy")
    assert recommendation([row("dense", None)], 50).startswith("dense, which spends the least time on")


def test_an_estimate_is_marked_with_its_reason() -> None:
    rows = [row("dense", 0.5), row("a_method_with_a_long_name", 0.5, setting="x=1 yy=2", estimates=("E",))]
    text = as_text(plan_tables(rows))
    assert "~4 MB" in text
    assert re.search(r"\| a_method_with_a_long_name x=1 yy=2 \|", text)
    assert "~ E: a_method_with_a_long_name x=1 yy=2" in text


def test_bandwidths_in_words() -> None:
    assert [bandwidth_text(m) for m in (0.05, 1, 999.9, 28_000, 2e6)] == [
        "50 kbit/s", "1 Mbit/s", "1 Gbit/s", "28 Gbit/s", "2 Tbit/s",
    ]  # fmt: skip
