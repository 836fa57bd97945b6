"""Trackers are told every row, go on where a run goes on, and cannot disturb it."""

from __future__ import annotations

import csv
import json
import struct
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from registry import interrupted, plan, untimed

from commexp.algorithms import SGD
from commexp.config.messages import UserError
from commexp.config.schema import TRACKERS
from commexp.integrations import tracking
from commexp.ranks import SWEEP, Sweep
from commexp.run_folder import Run, read_json

SMALL = ("dataset=linreg", "dataset.dim=20", "dataset.samples=20", "workers=4", "rounds=12", "eval_every=2")
ROUNDS = [0, 2, 4, 6, 8, 10, 12]
LABELS = {"sweep": "my-sweep", "algo": "sgd", "compress": "none", "dataset": "linreg"}
Start = Callable[..., Run]


@pytest.fixture(autouse=True)
def _sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test tells of a sweep is forgotten afterwards."""
    monkeypatch.setenv(SWEEP, "")
    monkeypatch.delenv(SWEEP)


def halted_and_resumed(run: Start, track: str) -> Run:
    with interrupted(after=6):
        assert run(*SMALL, track).status == "interrupted"
    done = run(*SMALL, track)
    assert done.status == "completed"
    return done


def columns(run: Run) -> dict[str, list[float]]:
    with open(run.folder / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


@pytest.mark.drawn
def test_tensorboard_holds_every_row_once(run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'commexp[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    round_ = SGD.round

    def dies(self: SGD, t: int) -> None:  # after a row that no checkpoint knows
        if t == 4:
            raise KeyboardInterrupt
        round_(self, t)

    with monkeypatch.context() as patch:
        patch.setattr(SGD, "round", dies)
        with pytest.raises(KeyboardInterrupt):
            run(*SMALL, "track=[tensorboard]", "save_every=3")
    done = halted_and_resumed(run, "track=[tensorboard]")
    assert "resumed after round 3" in (done.folder / "run.log").read_text()
    events = EventAccumulator(str(done.folder), purge_orphaned_data=True).Reload()
    for name, values in columns(done).items():
        found = events.Scalars(name)
        assert [e.step for e in found] == ROUNDS
        assert [e.value for e in found] == pytest.approx(values, rel=1e-6), name
    assert events.Scalars("summary/bytes_sent")[0].value == done.summary["bytes_sent"]
    (curves,) = events.Images("figures/curves")
    with Image.open(done.folder / "figures" / "curves.png") as picture:
        assert (curves.width, curves.height) == picture.size
    (labels,) = events.Tensors("labels/text_summary")
    assert yaml.safe_load(labels.tensor_proto.string_val[0].decode()) == {**LABELS, "sweep": ""}
    *_, summary = events.Tensors("summary/text_summary")  # the first is that of the interrupted run
    assert yaml.safe_load(summary.tensor_proto.string_val[0].decode()) == done.summary
    (config,) = events.Tensors("config/text_summary")
    assert b"commexp.algorithms.SGD" in config.tensor_proto.string_val[0]


@pytest.mark.drawn
def test_mlflow_holds_what_the_run_has(run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'commexp[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones would rather have a database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    Sweep("sweeps/my-sweep", 3).tell()
    done = halted_and_resumed(run, "track=[mlflow]")
    (number,) = {read_json(done.folder / "mlflow.json")["run"]}
    client = mlflow.MlflowClient()
    kept = client.get_run(number)
    assert (kept.info.run_name, kept.info.status) == (done.name, "FINISHED")
    assert LABELS.items() <= kept.data.tags.items()
    assert kept.data.params["algo.lr"] == "0.01"
    assert kept.data.metrics["summary.bytes_sent"] == done.summary["bytes_sent"]
    for name, values in columns(done).items():
        found = client.get_metric_history(number, name)
        assert [m.step for m in found] == ROUNDS
        assert [m.value for m in found] == values, name
    store = Path(kept.info.artifact_uri.removeprefix("file://"))
    assert yaml.safe_load((store / "config.yaml").read_text()) == done.config
    assert json.loads((store / "summary.json").read_text()) == done.summary
    assert (store / "figures" / "curves.png").read_bytes() == (done.folder / "figures" / "curves.png").read_bytes()


def records(path: Path) -> Iterator[Any]:
    """What an offline run of wandb has logged: protocol buffers in LevelDB's log format, whose blocks have 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        room = 2**15 - at % 2**15
        if room < 7:
            at += room
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.drawn
def test_wandb_holds_what_the_run_has(run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="pip install 'commexp[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    Sweep("sweeps/my-sweep", 3).tell()
    done = run(*SMALL, "track=[wandb]")
    number = read_json(done.folder / "wandb.json")["run"]
    (path,) = done.folder.glob(f"wandb/offline-run-*-{number}/*.wandb")
    rows, summary, opened = [], dict[str, Any](), []
    for record in records(path):
        if record.HasField("history"):
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
        if record.HasField("summary"):
            summary.update({i.key: json.loads(i.value_json) for i in record.summary.update if i.key})
        if record.HasField("run"):
            opened.append(record.run)
    for name, values in columns(done).items():
        assert [row[name] for row in rows if name in row] == values, name
    assert [row["round"] for row in rows if "round" in row] == ROUNDS
    assert rows[-1]["figures/curves/path"].startswith("media/images/figures/curves")
    assert list(path.parent.glob("files/media/images/figures/curves_*.png"))
    assert {**summary, **done.summary} == summary
    config = {u.key: json.loads(u.value_json) for u in opened[0].config.update}
    assert {**config, **done.config} == config
    assert opened[0].display_name == done.name
    assert opened[0].run_group == LABELS["sweep"]
    assert {*opened[0].tags} == {LABELS[name] for name in ("algo", "compress", "dataset")}


class Broken:
    """Raises in the call that ``when`` names."""

    when = ""

    def begin(self, *given: object) -> None:
        self.raise_in("begin")

    def row(self, *given: object) -> None:
        self.raise_in("row")

    def end(self, *given: object) -> None:
        self.raise_in("end")

    def raise_in(self, call: str) -> None:
        if call == self.when:
            raise RuntimeError("the service\nis away")


@pytest.mark.parametrize("when", ["begin", "row", "end"])
def test_a_tracker_that_raises_disturbs_nothing(
    when: str, run: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peaceful = untimed(run(*SMALL).folder / "metrics.csv")
    broken = types.SimpleNamespace(MlflowTracker=type("MlflowTracker", (Broken,), {"when": when}))
    monkeypatch.setattr(tracking, "import_module", lambda name: broken)
    done = run(*SMALL, "track=[mlflow]", "rerun=true")
    assert done.status == "completed"
    assert untimed(done.folder / "metrics.csv") == peaceful
    line = "track=mlflow: RuntimeError: the service is away; the run goes on without it"
    assert [text for text in capsys.readouterr().err.splitlines() if "note" in text] == [f"commexp: note: {line}"]
    assert (done.folder / "run.log").read_text().count(line) == 1


def test_a_package_that_is_missing_is_named_with_its_extra(
    run: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run(*SMALL, "track=[wandb]").status == "completed"
    assert "track=wandb: cannot be imported" in (text := capsys.readouterr().err)
    assert "pip install 'commexp[wandb]'; the run goes on without it" in text


def test_the_config_knows_them() -> None:
    assert plan("track=[tensorboard]").name == plan().name
    for words in ("track=[tensorbord]", "track=tensorboard"):
        with pytest.raises(UserError, match=r"^track=\S+: .*; give "):
            plan(words)
    for name in TRACKERS:
        assert (Path(tracking.__file__).parent / f"{name}.py").is_file()
