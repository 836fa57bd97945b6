"""The registry of metrics: it knows every column, the documentation explains every entry, and one entry is enough."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from commexp import metrics
from commexp.experiment.progress import Progress
from commexp.launch.sweep import minimised
from commexp.metrics import METRICS, OWN, PLACES, SCALES, Metric, adopt, described, foremost, metric, register, shown
from commexp.report.checked import ReadRun
from commexp.report.comparison import Comparison, as_markdown
from commexp.report.curves import draw_curves
from commexp.report.page.embed import embedded
from commexp.report.page.tables import methods_table, runs_table
from commexp.report.tables import as_text, summary_blocks
from commexp.run_folder import Run

ROOT = Path(__file__).parent.parent
F1 = Metric("test_f1", "test F1", better="higher", scale="percent", shown=tuple(PLACES), headline=9, progress=".1%")
#: between them, a run of each family and of each problem; every algorithm's columns: tests/algorithms/test_samples.py
FAMILIES = (
    "algo=dsgt prox=l1 dataset=linreg model=linear_regression dataset.dim=12 dataset.samples=10 batch_size=null",
    "algo=async_sgd dataset=ratings model=matrix_factorisation dataset.users=20 dataset.items=15",
    "algo=dppf model.width=8 batch_size=2 flatness=valley workers=2",
    "dataset=text dataset.tokens=600 dataset.test_tokens=200 model.layers=1 model.width=8 workers=2 batch_size=2",
    "dataset=linreg model=linear_regression dataset.dim=4 dataset.samples=3 batch_size=null topology=islands islands=2",
    "algo=gradient_coding dataset=breast_cancer model=logistic_regression straggler=bernoulli batch_size=null",
)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers does not outlive it."""
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


def test_every_column_of_every_family_has_an_entry_and_no_entry_is_left_over(run: Callable[..., Run]) -> None:
    known: set[str] = set()
    for words in FAMILIES:
        made = run(*words.split(), "rounds=2")
        assert set(made.metrics.columns) <= METRICS.keys(), words
        assert made.meta.get("metrics") is None, "commexp's own need no description"
        told = ReadRun(made.folder)  # a report derives some
        known |= {*told.metrics.columns, *told.summary}
    assert known >= {m.name for m in OWN}
    assert known >= {m.best for m in shown("best")}


def test_the_page_on_what_a_run_leaves_explains_every_entry() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = page.partition("| column of metrics.csv |")[2].partition("\n\n")[0]
    named = {word for span in re.findall(r"`([^`]+)`", table) for word in re.findall(r"\w+", span)}
    assert {m.name for m in OWN} <= named


def test_the_page_on_extensions_explains_every_field_and_place() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    page = text.partition("## A metric")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([^`\n]+)`", page))
    assert {f.name for f in dataclasses.fields(Metric)} - {"name", "shown"} <= told
    assert {*PLACES, *SCALES} <= told


def test_claims_are_about_columns_that_there_are() -> None:
    systems = yaml.safe_load((ROOT / "commexp" / "check" / "claims.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(systems)
    measured = re.findall(r"\b(?:metric|by): (.+)", text)
    assert len(measured) > 20
    for expression in measured:
        names = {n.id for n in ast.walk(ast.parse(expression.strip("'\""))) if isinstance(n, ast.Name)}
        assert names <= METRICS.keys(), expression


def test_where_one_metric_stands_for_a_run_no_two_are_alike() -> None:
    for place in ("final", "replay", "tuned"):
        ranks = [m.headline for m in foremost(place)]
        assert len(ranks) == len({*ranks})
        assert foremost(place)[0].name == "test_accuracy"


def made(folder: Path, seed: int = 0) -> Run:
    """A run with a column of somebody's own."""
    run = Run(folder)
    config = {"algo": {"_target_": "theirs.Method"}, "compress": {"_target_": "theirs.Codec", "k": 2}, "workers": 2}
    run.write_config({**config, "seed": seed})
    rows = [
        {"round": t, "step": t, "train_loss": 1.0 / (t + 1), "test_f1": 0.1 * t, "odd_one": t, "bytes_sent": 10 * t}
        | {"bytes_info": 10 * t, "bytes_wire": 20 * t, "wall_seconds": 0.1 * t, "sim_seconds": 0.1 * t}
        for t in range(6)
    ]
    run.write_rows("metrics", rows)
    last = {**rows[-1], "best_test_f1": 0.5, "evaluated_round": 5, "bytes_against_dense": 1.0, "sent_over_info": 1.0}
    run.write_summary({**last, "exchange": "all_reduce", "dense_bytes": 50, "parameters": 10})
    run.set_meta(status="completed", algo="method", compress="codec", seed=seed, metrics=described(rows[0]))
    return run


def test_one_entry_brings_a_column_from_outside_to_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report need not have what registered it: the run's folder describes it."""
    register(F1)
    folder = made(tmp_path / "one").folder
    with Progress("run", 5, 0, shown=False) as progress:
        assert "test F1 50.0%" in str(progress.show(5, {"train_loss": 1.0, "test_f1": 0.5, "bytes_sent": 1}))
    del METRICS["test_f1"]
    assert metric("test_f1").label == "test f1"
    run = ReadRun(folder)
    assert METRICS["test_f1"] == dataclasses.replace(F1, progress="")
    row = re.search(r"\| test F1 .*", as_text(summary_blocks(run)))
    assert row is not None
    assert row[0].split("|")[2:4] == [" 50.00% ", " 50.00% "]
    compared = Comparison([run])
    text = as_markdown(compared)
    assert "best test F1" in text
    assert compared.methods["test_f1"].tolist() == [0.5]
    assert minimised(run) == 0.5
    drawn: list[Figure] = []
    monkeypatch.setattr("commexp.report.curves.save", lambda figure, path: drawn.append(figure) or [])
    draw_curves({"one": [run]}, tmp_path / "curves")
    assert [axis.get_ylabel() for axis in drawn[0].axes if axis.get_ylabel()] == ["train loss", "test F1"]
    data = embedded(compared)
    assert (data["first"], data["scales"]["test_f1"]) == ("test_f1", "percent")
    assert ("odd_one", "odd one") in data["y"], "a column without an entry is called what its name says"
    for table in (methods_table(compared), runs_table(compared)):
        assert {"test F1", "best test F1"} <= {*table.heads}


def test_an_entry_takes_no_others_place() -> None:
    for name in ("train_loss", "status", "best_loss", "loss_std", "two words", ""):
        with pytest.raises(ValueError, match=f"name={name}: no free name"):
            register(Metric(name, shown=()))


WRONG = ({"scale": "metres"}, {"shown": ("nowhere",)}, {"better": "red"}, {"shown": ("best",)}, {"progress": "q"})


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_an_entry_that_says_nothing_of_use_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give|format"):
        Metric("loss", **fields)


STRANGE: list[object] = [
    None, 1, "test_f1", {"test_f1": 1}, [None, 1, "x", [], {}], [{"name": "train_loss"}],
    [{**dataclasses.asdict(F1), "name": "train_loss", "label": "mine"}], [{**dataclasses.asdict(F1), "name": "status"}],
    [{**dataclasses.asdict(F1), "headline": float("inf")}], [{**dataclasses.asdict(F1), "shown": ["nowhere"]}],
    [{**dataclasses.asdict(F1), "shown": 3}], [{**dataclasses.asdict(F1), "scale": ["bytes"]}],
    [{**dataclasses.asdict(F1), "name": "../x"}], [{**dataclasses.asdict(F1), "more": "x"}],
]  # fmt: skip


@pytest.mark.parametrize("told", STRANGE, ids=lambda told: str(told)[:40])
def test_what_a_folder_describes_may_be_anything(told: object) -> None:
    before = {name: entry for name, entry in METRICS.items()}
    adopt(told)
    assert {name: METRICS[name] for name in before} == before
    assert {*METRICS} - {*before} <= {"test_f1"}
    assert len(metrics.shown("table")) >= len([m for m in OWN if "table" in m.shown])
