"""Methods at equal cost: values at a budget, Pareto fronts, the soonest setting, and times by bandwidth."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from commexp.cli.report import budgets, compare
from commexp.config.messages import UserError
from commexp.metrics import metric
from commexp.report.budgets import EqualCost, value_at
from commexp.report.checked import ReadRun
from commexp.report.looks import chosen
from commexp.report.pareto import places
from commexp.report.replay import Priced, at_bandwidths, by_bandwidth, draw_replay, equal_cost, times_to
from commexp.report.settings import Family, best_setting, families, on_own_network
from commexp.report.spread import Spread, human_bandwidth, human_seconds
from commexp.report.sweep import write_sweep
from commexp.report.target import Target
from commexp.run_folder import Run, write_json

LOOKS = chosen({"a": "a", "b": "b"}, {"a": 0, "b": 0})


def curve(sent: list[float], accuracy: list[float], per_byte: float = 1e-6) -> pd.DataFrame:
    """metrics.csv of a run whose clock runs with its bytes."""
    columns = {"bytes_sent": sent, "sim_seconds": [per_byte * b for b in sent], "test_accuracy": accuracy}
    return pd.DataFrame({"round": range(len(sent)), **columns, "train_loss": [1 - a for a in accuracy]})


@pytest.mark.parametrize(
    ("budget", "value", "reached", "early"),
    [
        (0, 0.1, True, False),
        (25, 0.2, True, True),  # 0.1 + 25/100 (0.5 - 0.1)
        (100, 0.5, True, False),
        (150, 0.6, True, False),  # 0.5 + 50/200 (0.9 - 0.5)
        (300, 0.7, True, False),  # the last of the two evaluations there
        (325, 0.725, True, False),
        (400, 0.8, True, False),
        (401, 0.8, False, False),
        (1e30, 0.8, False, False),
    ],
)
def test_a_value_between_evaluations_by_hand(budget: float, value: float, reached: bool, early: bool) -> None:
    run = curve([0, 100, 300, 300, 400], [0.1, 0.5, 0.9, 0.7, 0.8])
    found = value_at(run, "bytes_sent", "test_accuracy", budget)
    assert found.value == pytest.approx(value, abs=1e-15)
    assert found[1:] == (reached, early)


def test_a_value_that_no_run_tells() -> None:
    run = curve([10, 20], [0.1, 0.5])
    assert math.isnan(value_at(run, "bytes_sent", "test_accuracy", 5).value)
    for frame, name in ((run, "test_rmse"), (run.iloc[:0], "test_accuracy"), (run.assign(bytes_sent=np.nan), "round")):
        found = value_at(frame, "bytes_sent", name, 5)
        assert math.isnan(found.value)
        assert not found.reached
    diverged = curve([0, 10, 20], [0.1, 0.5, math.nan])
    assert value_at(diverged, "bytes_sent", "test_accuracy", 10).value == 0.5
    assert math.isnan(value_at(diverged, "bytes_sent", "test_accuracy", 15).value)


@pytest.fixture
def two() -> EqualCost:
    """Method a: two runs, of which one ends at 200 bytes. Method b: one run of 1000 bytes; c has none."""
    a = [curve([0, 100, 200], [0.1, 0.5, 0.7]), curve([0, 100, 300], [0.1, 0.7, 0.9])]
    b = [curve([0, 500, 1000], [0.1, 0.4, 0.6])]
    names = {"a": "2 completed", "b": "1 completed", "c": "1 failed"}
    return EqualCost({"a": a, "b": b, "c": []}, names, {"bytes_sent": [150, 250]})


def test_a_table_has_means_spreads_and_what_is_unreached(two: EqualCost) -> None:
    table = two.table.set_index(["cost", "budget", "method"])
    a = table.loc["bytes_sent", 150, "a"]
    values = np.array([0.5 + 0.5 * 0.2, 0.7 + 0.25 * 0.2])  # by hand
    assert a["mean"] == pytest.approx(values.mean())
    assert a["std"] == pytest.approx(values.std(ddof=1))
    assert a["error"] == pytest.approx(values.std(ddof=1) / math.sqrt(2))
    assert (a["count"], a["reached"], a["early"]) == (2, 2, 0)
    a = table.loc["bytes_sent", 250, "a"]
    assert a["mean"] == pytest.approx((0.7 + 0.85) / 2), "a run that has ended counts with its last value"
    assert (a["count"], a["reached"]) == (2, 1)
    b = table.loc["bytes_sent", 150, "b"]
    assert (b["mean"], b["early"]) == (pytest.approx(0.1 + 0.3 * 0.3), 1)
    assert math.isnan(b["std"])
    assert table.loc["bytes_sent", 150, "c"]["count"] == 0
    heads, rows = two.readable("bytes_sent")
    assert heads == ["method", "runs", "at 150 B", "at 250 B", "at its end", "spent in all", "on the front"]
    assert rows[0] == ["a", "2 completed", "67.50% ± 10.61", "77.50% ± 10.61 (1 of 2 unreached)", "80.00% ± 14.14",
                       "250 B ± 71", "yes"]  # fmt: skip
    assert rows[1] == ["b", "1 completed", "~19.00%", "~25.00%", "60.00%", "1 kB", "no: a"]
    assert rows[2] == ["c", "1 failed", "-", "-", "-", "-", "-"]


def test_budgets_that_nobody_gave_are_those_of_the_cheapest_run(two: EqualCost) -> None:
    assert two.budgets["bytes_sent"] == [150, 250]
    assert two.budgets["sim_seconds"] == pytest.approx([2e-5, 2e-4]), "the dearest spends less than ten times as much"
    dear = EqualCost({"a": two.curves["a"], "b": [curve([0, 2000], [0.1, 0.2]), curve([0, 0], [0, 0])]})
    assert dear.budgets["bytes_sent"] == [20, 200, 2000]
    assert EqualCost({}).shown == EqualCost({"a": [curve([0, 0], [0.1, 0.1])]}).shown == []
    assert EqualCost({}).markdown() == []


def test_the_metric_is_the_foremost_that_all_have() -> None:
    accurate, plain = curve([0, 9], [0.1, 0.2]), curve([0, 9], [0.1, 0.2]).drop(columns="test_accuracy")
    assert EqualCost({"a": [accurate], "b": [accurate]}).metric is metric("test_accuracy")
    assert EqualCost({"a": [accurate], "b": [plain]}).metric is metric("train_loss")
    assert EqualCost({"a": [accurate.drop(columns="train_loss")], "b": [plain]}).metric is metric("test_accuracy")
    assert EqualCost({"a": []}).metric is None


@pytest.mark.parametrize("higher", [True, False])
def test_the_front_is_that_of_a_brute_force(higher: bool) -> None:
    draw = np.random.default_rng(3)
    for _ in range(100):
        n = int(draw.integers(1, 9))
        cost, value = draw.integers(1, 6, n).tolist(), draw.integers(1, 6, n).tolist()  # with ties
        names = [f"m{i}" for i in range(n)]
        spreads = [
            {name: Spread(float(v), math.nan, 1) for name, v in zip(names, each, strict=True)} for each in (cost, value)
        ]
        found = places(*spreads, higher)
        good = np.array(value) if higher else -np.array(value)

        def dominates(i: int, j: int, cost: list[int] = cost, good: np.ndarray = good) -> bool:
            return bool(cost[i] <= cost[j] and good[i] >= good[j] and (cost[i] < cost[j] or good[i] > good[j]))

        for j, name in enumerate(names):
            beaten = [i for i in range(n) if dominates(i, j)]
            assert found[name].front == (not beaten)
            if beaten:
                by = names.index(found[name].beaten_by)
                assert dominates(by, j)
                assert found[names[by]].front
                assert good[by] == max(good[i] for i in range(n) if cost[i] <= cost[j])


def test_a_front_by_less_than_the_errors_is_told() -> None:
    cost = {name: Spread(c, 0.0, 4) for name, c in (("cheap", 1.0), ("same", 2.0), ("better", 3.0), ("none", math.nan))}
    value = {"cheap": Spread(0.80, 0.02, 4), "same": Spread(0.81, 0.02, 4), "better": Spread(0.9, 0.02, 4)}
    found = places(cost, {**value, "none": Spread(0.99, 0.0, 4)}, higher=True)
    assert found["same"].as_good == "cheap", "0.01 <= 2 sqrt(2) 0.02 / 2"
    assert (found["better"].front, found["better"].as_good) == (True, "")
    assert not found["none"].front
    alone = places(cost, {**value, "same": Spread(0.81, math.nan, 1), "none": Spread(math.nan, math.nan, 0)}, True)
    assert alone["same"].as_good == "", "one run tells no error"


def test_spreads_and_units() -> None:
    spread = Spread.of([1.0, 2.0, 4.0])
    assert (spread.mean, spread.count) == (pytest.approx(7 / 3), 3)
    assert spread.std == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    assert spread.error == pytest.approx(spread.std / math.sqrt(3))
    assert Spread.of([0.1 + 0.2, 0.3, 0.3]).std == 0, "the same number, added up in another order"
    assert math.isinf(Spread.of([1.0, math.inf]).mean)
    assert spread.differs(Spread(spread.mean + 2.1 * spread.error, 0.0, 2)) is True
    assert spread.differs(Spread(spread.mean + 1.9 * spread.error, 0.0, 2)) is False
    assert spread.differs(Spread.of([5.0])) is None
    texts = {
        0.0: "0 s",
        0.0123: "12.3 ms",
        1.5: "1.5 s",
        99.0: "99 s",
        5400.0: "90 min",
        86400.0: "24 h",
        8.64e5: "10 d",
    }
    assert {seconds: human_seconds(seconds) for seconds in texts} == texts
    assert human_seconds(5400, 600) == "90 min ± 10"
    assert human_seconds(math.nan) == "-"
    assert [human_bandwidth(b) for b in (10, 999, 2500)] == ["10 Mbit/s", "999 Mbit/s", "2.5 Gbit/s"]


FAMILY = Family("topk", ["compress.k"], {"a": "0.1", "b": "0.01", "c": "0.001"})


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (
            {"a": [3.0, 3.2], "b": [1.0, 1.2], "c": [1.3, math.inf]},
            "the best compress.k for 1 Gbit/s is 0.01, with 0.9 accuracy after 1.1 s ± 0.14 (2 runs), before 0.1 "
            "(3.1 s ± 0.14); 0.001 reaches it in 1 of 2 runs.",
        ),
        (
            {"a": [1.1, 1.3], "b": [1.0, 1.2], "c": [9.0, 9.2]},
            "the best compress.k for 1 Gbit/s cannot be told: to 0.9 accuracy, 0.01 (1.1 s ± 0.14) and 0.1 (1.2 s "
            "± 0.14) differ by no more than the errors, before 0.001 (9.1 s ± 0.14).",
        ),
        (
            {"a": [2.0], "b": [1.0], "c": []},
            "the best compress.k for 1 Gbit/s is 0.01, with 0.9 accuracy after 1 s (1 run), before 0.1 (2 s); the "
            "spread over seeds is not known, for which each setting must have several runs; 0.001 has no completed "
            "run.",
        ),
        (
            {"a": [math.inf, 2.0], "b": [math.inf], "c": [math.inf]},
            "no compress.k for 1 Gbit/s reaches 0.9 accuracy in each of its runs; 0.1 reaches it in 1 of 2 runs, 0.01 "
            "does not reach it, 0.001 does not reach it.",
        ),
        ({"a": [math.inf], "b": [math.inf], "c": []}, "no run reaches 0.9 accuracy, whatever compress.k."),
    ],
    ids=["told", "errors", "one run", "partly", "never"],
)
def test_the_soonest_setting(times: dict[str, list[float]], told: str) -> None:
    assert best_setting(FAMILY, times, "1 Gbit/s", Target(0.9)) == f"topk: {told}"


def made(folder: Path, k: float, seed: int, seconds: float, lr: float = 0.1, **changes: object) -> ReadRun:
    """A completed run that has 95 % accuracy after ``seconds``, from before summaries had what stopped them."""
    run = Run(folder)
    run.make_folder()
    config = {
        "seed": seed, "workers": 4, "target_accuracy": 0.9, "rounds": 4, "network": {"bandwidth": 100.0},
        "compress": {"_target_": "commexp.compressors.TopK", "k": k},
        "algo": {"_target_": "commexp.algorithms.SGD", "lr": lr},
    }  # fmt: skip
    run.write_config({**config, **changes})
    rows = [
        {"round": t, "step": t, "wall_seconds": 0.1 * t, "sim_seconds": seconds * t / 2, "bytes_sent": 1000 * k * t,
         "train_loss": 1 / (1 + t), "test_accuracy": (0.1, 0.5, 0.95)[t]}
        for t in range(3)
    ]  # fmt: skip
    run.write_rows("metrics", rows)
    run.set_meta(name=folder.name, status="completed", algo="sgd", compress="topk", workers=4)
    return ReadRun(folder)


def test_families_are_of_methods_that_differ_in_hyper_parameters_only(tmp_path: Path) -> None:
    groups = {
        f"{k} {lr} {workers}": [
            made(tmp_path / f"{k}-{lr}-{workers}", k, 0, 1.0, lr, workers=workers, rounds=int(1 / k))
        ]
        for k, lr, workers in (
            (0.1, 0.1, 4),
            (0.01, 0.1, 4),
            (0.01, 0.5, 4),
            (0.1, 0.1, 8),
            (0.01, 0.1, 8),
            (0.1, 0.1, 16),
        )
    }
    first, second = families(groups)
    assert first == Family("sgd topk", ["compress.k", "algo.lr"], {
        "0.1 0.1 4": "compress.k=0.1 algo.lr=0.1", "0.01 0.1 4": "compress.k=0.01 algo.lr=0.1",
        "0.01 0.5 4": "compress.k=0.01 algo.lr=0.5",
    })  # fmt: skip
    assert second == Family("sgd topk", ["compress.k"], {"0.1 0.1 8": "0.1", "0.01 0.1 8": "0.01"})
    lengths = {f"{n} rounds": [made(tmp_path / f"{n}", 0.1, 0, 1.0, rounds=n)] for n in (10, 20)}
    assert families(lengths) == [], "a shorter run is no other setting"
    (sentence,) = on_own_network({name: runs for name, runs in groups.items() if name in second.settings}, Target(0.99))
    assert sentence == "sgd topk: no run reaches 0.99 accuracy, whatever compress.k."


def folders(tmp_path: Path) -> list[Path]:
    times = {(0.1, 0): 3.0, (0.1, 1): 3.2, (0.01, 0): 1.0, (0.01, 1): 1.2}
    return [made(tmp_path / f"{k}-{seed}", k, seed, t).folder for (k, seed), t in times.items()]


SENTENCE = (
    "sgd topk: the best compress.k for the network of the runs is 0.01, with 0.9 accuracy after 1.1 s ± 0.14 (2 runs), "
    "before 0.1 (3.1 s ± 0.14)."
)


def test_reports_have_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = budgets(["bytes=5,15", "seconds=0.25"])
    assert at == {"bytes_sent": [5, 15], "sim_seconds": [0.25]}
    compare(folders(tmp_path), tmp_path / "report", [], None, at)
    told = capsys.readouterr().out
    text = (tmp_path / "report" / "comparison.md").read_text(encoding="utf-8")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for shown in (told, text, page):
        assert SENTENCE in shown
        assert "Test accuracy at equal bytes sent, all workers" in shown
        assert "72.50% ± 0.00" in shown, "0.5 + (15 - 10) / 10 (0.95 - 0.5) of k = 0.01"
    table = pd.read_csv(tmp_path / "report" / "budgets.csv").set_index(["cost", "budget", "method"])
    assert table.loc[("bytes_sent", 15, "topk k=0.1"), "mean"] == pytest.approx(0.1 + 0.4 * 15 / 100)
    assert table.loc[("sim_seconds", 0.25, "topk k=0.01"), "mean"] == pytest.approx(
        (0.1 + 0.4 * 0.5 + 0.1 + 0.4 / 2.4) / 2
    )
    fronts = pd.read_csv(tmp_path / "report" / "pareto.csv", keep_default_na=False).set_index(["cost", "method"])
    assert fronts.loc[("bytes_sent", "topk k=0.1"), "beaten_by"] == "topk k=0.01"
    assert fronts.loc[("bytes_sent", "topk k=0.01"), "front"]


def test_sweeps_have_the_tables(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "one"
    for i, path in enumerate(folders(tmp_path / "runs")):
        k, _, seed = path.name.partition("-")
        job = {"overrides": {"compress.k": k, "seed": seed}, "run": path.name, "target": 0.9, "error": None}
        write_json(folder / "jobs" / f"{i}.json", job)
    write_sweep(folder)
    text = (folder / "budgets.md").read_text(encoding="utf-8")
    assert SENTENCE in text
    assert "| k=0.01 | 2 completed | ~" in text
    assert {p.name for p in folder.glob("*.csv")} == {"runs.csv", "sweep.csv", "budgets.csv", "pareto.csv"}


RIGHT = "bytes=1e6,1e7 or seconds=1,10"


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("gold=1", f"--at gold=1: no such cost; give {RIGHT}"),
        ("bytes", f"--at bytes: '' is no positive number; give {RIGHT}"),
        ("seconds=1,fast", f"--at seconds=1,fast: 'fast' is no positive number; give {RIGHT}"),
        ("bytes=-1", f"--at bytes=-1: '-1' is no positive number; give {RIGHT}"),
        ("bytes=nan", f"--at bytes=nan: 'nan' is no positive number; give {RIGHT}"),
    ],
)
def test_budgets_that_are_none(word: str, wrong: str) -> None:
    with pytest.raises(UserError) as error:
        budgets([word])
    assert str(error.value) == wrong


SMALL = (
    "dataset=linreg",
    "dataset.dim=10",
    "dataset.samples=20",
    "workers=2",
    "rounds=12",
    "compress=topk",
    "compress.k=3",
)


def test_a_run_that_its_bytes_have_stopped_agrees_with_the_table(run: Callable[..., Run]) -> None:
    """With an evaluation after each round, exactly; with fewer, within what the straight line leaves open."""
    whole, coarse = run(*SMALL, "eval_every=1"), run(*SMALL, "eval_every=4")
    budget = float(whole.metrics["bytes_sent"].iloc[6]) - 1
    stopped, seldom = (run(*SMALL, f"eval_every={n}", f"stop.bytes={budget}") for n in (1, 4))
    assert stopped.summary["round"] == seldom.summary["round"] == 6
    curves = {r.folder.name: [r.metrics] for r in (whole, stopped)}
    sent = float(stopped.summary["bytes_sent"])
    equal = EqualCost(curves, at={"bytes_sent": [budget, sent], "sim_seconds": [float(stopped.summary["sim_seconds"])]})
    assert equal.metric is metric(equal.table["metric"].iloc[0])
    values = equal.table.pivot(index="method", columns=["cost", "budget"], values="mean")
    assert values.iloc[0].tolist() == values.iloc[1].tolist(), "at the budget, and at what was sent in the end"
    assert values.iloc[0].iloc[1] == stopped.summary[equal.metric.name]
    assert (equal.table["reached"] == 1).all()
    name = equal.metric.name
    ends = value_at(coarse.metrics, "bytes_sent", name, sent).value, float(seldom.summary[name])
    at = [float(coarse.metrics[name].iloc[i]) for i in (1, 2)]
    assert all(min(at) <= value <= max(at) for value in ends)
    assert ends[1] == stopped.summary[name]


@pytest.fixture
def priced() -> dict[str, list[Priced]]:
    """Method a: three runs, all of which reach 90 %; b: two, one of which does; seconds are bytes over bandwidth."""
    ends = {"a": [100.0, 200.0, 600.0], "b": [1000.0, 2000.0]}
    accuracy = {"a": [0.95] * 3, "b": [0.95, 0.5]}
    bandwidths = (1.0, 10.0, 100.0, 1000.0, 10000.0)
    return {
        name: [
            Priced(curve([0, end], [0.1, a]), {b: [0.0, end / b] for b in bandwidths})
            for end, a in zip(ends[name], accuracy[name], strict=True)
        ]
        for name in ends
    }


def test_times_by_bandwidth_have_spreads_and_bands(
    priced: dict[str, list[Priced]], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(0.9)
    assert times_to(priced, 10.0, target) == {"a": [10.0, 20.0, 60.0], "b": [100.0, math.inf]}
    equal = equal_cost(priced, 10.0, {})
    table = by_bandwidth(priced, target, equal)
    again = pd.read_csv(io.StringIO(table.to_csv(index=False))).set_index(["method", "mbit_per_second"])
    a, b = again.loc[("a", 10.0)], again.loc[("b", 10.0)]
    assert (a["seconds_to_target"], a["seconds_to_target_std"]) == (30.0, pytest.approx(np.std([10, 20, 60], ddof=1)))
    assert (b["seconds"], b["seconds_to_target"], b["reached_target"], b["count"]) == (150.0, 100.0, 1, 2)
    blocks = at_bandwidths(table, 10.0, target, equal.metric)
    assert "| b      | 2 completed | 72.50% ± 31.82      | 1.5 kB ± 0.71 | 100 s (1 of 2) " in blocks[3].replace(
        "1.67 min", "100 s"
    )
    by_loss = by_bandwidth(priced, Target(0.01, is_loss=True), equal)
    assert "| not reached | not reached | not reached | not reached |" in at_bandwidths(by_loss, 10.0, target, None)[3]
    for each in priced.values():
        for one in each:
            one.metrics = one.metrics.drop(columns="train_loss")
    unknown = by_bandwidth(priced, Target(0.01, is_loss=True), equal)
    assert "| -         | -          | -        | -         |" in at_bandwidths(unknown, 10.0, target, None)[3]
    figures: list[Figure] = []
    monkeypatch.setattr("commexp.report.replay.save", lambda figure, path: figures.append(figure) or [])
    for each in priced.values():
        for one in each:
            one.metrics = one.metrics.assign(train_loss=1 - one.metrics["test_accuracy"])
    draw_replay(priced, target, Path("replay"), LOOKS, kind="range")
    (figure,) = figures
    assert [axis.get_xlabel() for axis in figure.axes] == ["virtual seconds"] * 4 + ["Mbit/s"]
    last = figure.axes[-1]
    assert last.get_title() == "virtual seconds to 0.9 acc."
    bandwidths = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
    lines = [np.asarray(line.get_ydata()) for line in last.get_lines()]
    np.testing.assert_allclose(lines, [300 / bandwidths, 1000 / bandwidths])
    (band,) = last.collections
    corners = band.get_paths()[0].vertices
    for bandwidth in bandwidths:
        edge = corners[np.isclose(corners[:, 0], bandwidth), 1]
        assert (edge.min(), edge.max()) == pytest.approx((100 / bandwidth, 600 / bandwidth)), "least and greatest run"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a", "b (1 of 2 reach it)"]


def test_each_seed_is_no_line_of_its_own(priced: dict[str, list[Priced]], monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("commexp.report.replay.save", lambda figure, path: figures.append(figure) or [])
    draw_replay(priced, None, Path("replay"), LOOKS)
    for axis in figures[0].axes:
        assert len([line for line in axis.get_lines() if len(np.asarray(line.get_xdata()))]) <= len(priced)
    assert figures[0].axes[-1].get_title() == "virtual seconds to the end"


@pytest.mark.drawn
def test_the_picture_of_the_front(two: EqualCost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("commexp.report.pareto.save", lambda figure, path: figures.append(figure) or [])
    two.draw(tmp_path / "pareto", LOOKS)
    (figure,) = figures
    figure.draw_without_rendering()
    assert len(figure.axes) == 2
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a", "b", "Pareto front", "dominated, and by which"]
    steps = [line for line in figure.axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in steps] == [(250, 0.8)]
    dotted = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert [[*line.get_xdata(), *line.get_ydata()] for line in dotted] == [[1000, 250, 0.6, 0.8]]
    alone = EqualCost({"a": two.curves["a"]})
    assert alone.draw(tmp_path / "alone", LOOKS) == []
