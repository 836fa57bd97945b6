"""Trackers are told every row, go on where a run goes on, and cannot disturb it."""

from __future__ import annotations

import csv
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registry import interrupted, plan, untimed

from commexp.algorithms import SGD
from commexp.config.messages import UserError
from commexp.config.schema import TRACKERS
from commexp.integrations import tracking
from commexp.run_folder import Run, read_json

SMALL = ("dataset=linreg", "dataset.dim=20", "dataset.samples=20", "workers=4", "rounds=12", "eval_every=2")
Start = Callable[..., Run]


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
        assert [e.step for e in found] == [0, 2, 4, 6, 8, 10, 12]
        assert [e.value for e in found] == pytest.approx(values, rel=1e-6), name
    assert "summary/bytes_sent" in events.Tags()["scalars"]
    (config,) = events.Tensors("config/text_summary")
    assert b"commexp.algorithms.SGD" in config.tensor_proto.string_val[0]


class Recorded:
    """The parts of mlflow and wandb that we call, written down."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.steps: list[int] = []
        self.runs: list[str] = []
        self.summary: dict[str, Any] = {}
        self.ends: list[object] = []
        self.config: dict[str, Any] = {}

    def wandb(self) -> types.ModuleType:
        module: Any = types.ModuleType("wandb")
        module.Settings = dict

        def init(**given: Any) -> object:
            name = given["id"] or f"new{len(self.runs)}"
            self.runs.append(name)
            self.config = given["config"]
            return types.SimpleNamespace(id=name, log=log, summary=self.summary, finish=finish)

        def log(row: dict[str, float], step: int) -> None:
            self.rows.append(row)
            self.steps.append(step)

        def finish(exit_code: int) -> None:
            self.ends.append(exit_code)

        module.init = init
        return module

    def mlflow(self) -> dict[str, types.ModuleType]:
        module, entities = (types.ModuleType(name) for name in ("mlflow", "mlflow.entities"))
        entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]
        entities.Metric = lambda key, value, time, step: (key, value, step)  # type: ignore[attr-defined]
        recorded = self

        class MlflowClient:
            def get_experiment_by_name(self, name: str) -> None:
                assert name == "commexp"

            def create_experiment(self, name: str) -> str:
                return name

            def create_run(self, experiment: str, run_name: str) -> object:
                recorded.runs.append(run_name)
                return types.SimpleNamespace(info=types.SimpleNamespace(run_id="the-run"))

            def update_run(self, run: str, status: str) -> None:
                recorded.runs.append(run)

            def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
                assert run == "the-run"
                assert len(params) <= 100
                recorded.config.update(params)
                if metrics:
                    recorded.rows.append({key: value for key, value, _ in metrics})
                    recorded.steps.append(metrics[0][2])

            def log_text(self, run: str, text: str, file: str) -> None:
                assert "_target_: commexp.algorithms.SGD" in text

            def set_terminated(self, run: str, status: str) -> None:
                recorded.ends.append(status)

        module.MlflowClient = MlflowClient  # type: ignore[attr-defined]
        return {"mlflow": module, "mlflow.entities": entities}


def test_wandb_is_told_and_goes_on(run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Recorded()
    monkeypatch.setitem(sys.modules, "wandb", told.wandb())
    done = halted_and_resumed(run, "track=[wandb]")
    assert told.steps == [0, 2, 4, 6, 8, 10, 12]
    assert {name: [row[name] for row in told.rows] for name in told.rows[0]} == columns(done)
    assert told.runs == ["new0", "new0"]
    assert told.ends == [1, 0]
    assert told.summary["bytes_sent"] == done.summary["bytes_sent"]
    assert told.config["algo"]["_target_"] == "commexp.algorithms.SGD"
    run(*SMALL, "track=[wandb]", "rerun=true")
    assert told.runs[2] == "new2", "a run made anew is another one there, too"


def test_mlflow_is_told_and_goes_on(run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Recorded()
    for name, module in told.mlflow().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    done = halted_and_resumed(run, "track=[mlflow]")
    rows = [(s, r) for s, r in zip(told.steps, told.rows, strict=True) if "train_loss" in r]
    assert [step for step, _ in rows] == [0, 2, 4, 6, 8, 10, 12]
    assert [row["bytes_sent"] for _, row in rows] == columns(done)["bytes_sent"]
    assert told.rows[-1]["summary.bytes_sent"] == done.summary["bytes_sent"]
    assert told.runs == [done.name, "the-run"]
    assert told.ends == ["KILLED", "FINISHED"]
    assert told.config["algo.lr"] == "0.01"
    assert read_json(done.folder / "mlflow.json") == {"run": "the-run"}


def test_mlflow_itself(run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'commexp[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones would rather have a database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    done = halted_and_resumed(run, "track=[mlflow]")
    (number,) = {read_json(done.folder / "mlflow.json")["run"]}
    client = mlflow.MlflowClient()
    assert client.get_run(number).info.status == "FINISHED"
    sent = {m.step: m.value for m in client.get_metric_history(number, "bytes_sent")}
    assert list(sent.values()) == columns(done)["bytes_sent"]


def test_wandb_itself_offline(run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="pip install 'commexp[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    done = run(*SMALL, "track=[wandb]")
    assert done.status == "completed"
    number = read_json(done.folder / "wandb.json")["run"]
    assert list(done.folder.glob(f"wandb/offline-run-*-{number}/*.wandb"))


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
