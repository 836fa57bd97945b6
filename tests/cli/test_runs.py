"""commexp-runs, and the same from Python: runs are found by what they are, followed, and removed with care."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import environment, status_of

import commexp
from commexp.api import run_experiment
from commexp.cli import runs as desk
from commexp.cli.runs import main, table
from commexp.config.messages import UserError
from commexp.config.query import meaning

SMALL = ("dataset=linreg", "dataset.dim=8", "dataset.samples=10", "workers=4", "rounds=4", "eval_every=2")
SWEPT = ("algo=topk,regtopk", "compress.k=2", "seed=0,1", *SMALL)
Desk = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with a dense run, one of Top-k, one of DPPF, one of local SGD, and one that has diverged."""
    outputs = tmp_path_factory.mktemp("made") / "outputs"
    for words in (
        ["algo=sgd"],
        ["algo=topk", "compress.k=2", "seed=1"],
        ["algo=dppf", "algo.tau=2"],
        ["algo=fedavg", "algo.tau=2", "participation=1.0"],
        ["algo=sgd", "algo.lr=1e12"],
    ):
        run_experiment([*SMALL, *words, f"outputs={outputs}", "launch.device=cpu"], figures=False)
    return outputs


@pytest.fixture
def outputs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "outputs")
    return Path("outputs")


@pytest.fixture
def call(outputs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Desk:
    def called(*words: str) -> tuple[int, str, str]:
        status = status_of(main, ["commexp-runs", *words], monkeypatch)
        assert isinstance(status, int)
        return status, *capfd.readouterr()

    return called


def found(*query: str) -> list[str]:
    """The runs, by what tells them apart."""
    names = {"sgd-none": "dense", "sgd-topk": "topk", "dppf-none": "dppf", "localsgd-none": "fedavg"}
    runs = commexp.runs(*query)
    lost = [run.status == "diverged" for run in runs]
    return sorted("diverged" if bad else names[run.name.rsplit("-", 2)[0]] for run, bad in zip(runs, lost, strict=True))


@pytest.mark.parametrize(
    ("query", "fitting"),
    [
        ((), "dense diverged dppf fedavg topk"),
        (("algo=sgd",), "dense diverged topk"),
        (("algo=topk",), "topk"),
        (("algo=dppf",), "dppf"),
        (("algo=localsgd",), "fedavg"),
        (("algo=fedavg",), "fedavg"),
        (("algo=sgd,dppf", "status=completed"), "dense dppf topk"),
        (("compress=topk",), "topk"),
        (("compress!=topk", "algo=sgd"), "dense diverged"),
        (("compress.k<3",), "topk"),
        (("compress.k>=3",), ""),
        (("seed=0",), "dense diverged dppf fedavg"),
        (("seed=1,2",), "topk"),
        (("algo.lr=1e12",), "diverged"),
        (("algo.tau=2.0",), "dppf fedavg"),
        (("model=linear_regression",), "dense diverged dppf fedavg topk"),
        (("dataset=linreg", "topology=ring"), ""),
        (("status!=completed",), "diverged"),
        (("train_loss<1e9", "seed>0"), "topk"),
        (("workers=4", "speed.compile=false"), "dense diverged dppf fedavg topk"),
    ],
)
def test_queries(outputs: Path, query: tuple[str, ...], fitting: str) -> None:
    assert found(*query) == fitting.split()


def test_a_preset_is_found_without_what_was_typed(outputs: Path) -> None:
    """In folders from before meta.json told it, and where the same run was typed in another way."""
    for path in outputs.glob("runs/*/meta.json"):
        meta = json.loads(path.read_text())
        assert {"algo=sgd", "algo=topk", "algo=dppf", "algo=fedavg"} & {*meta.pop("overrides")}
        path.write_text(json.dumps(meta))
    assert found("algo=topk") == ["topk"]
    assert found("algo=fedavg") == ["fedavg"]
    assert found("algo=sam") == []
    assert meaning("algo", "topk") == {
        "algo._target_": "commexp.algorithms.SGD",
        "compress._target_": "commexp.compressors.TopK",
    }
    assert meaning("algo", "sam")["algo.sam"] == 0.05
    assert meaning("algo", "../config") == {}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("compres.k<1", "compres.k<1: no such key; did you mean compress.k"),
        ("lr=0.1", "lr=0.1: no such key; give algo.lr=0.1"),
        ("compress.k<a", "compress.k<a: 'a' is no number; give one, or compress.k=a"),
        ("nothing", "RUN=nothing: no such run in outputs; commexp-runs list shows those that there are"),
    ],
)
def test_mistakes_are_one_line(call: Desk, query: str, message: str) -> None:
    status, out, err = call("find", query)
    assert (status, out) == (2, "")
    assert err.startswith(f"commexp: error: {message}")
    assert len(err.splitlines()) == 1


def test_load_by_name_digits_folder_and_query(outputs: Path) -> None:
    topk = commexp.load("algo=topk")
    assert topk.folder.is_absolute()
    for word in (topk.name, topk.name[:12], topk.name[-8:], str(topk.folder), "algo=topk"):
        assert commexp.load(word) == topk
    assert commexp.load(topk.folder.absolute()).metrics.equals(topk.metrics)
    with pytest.raises(UserError, match=r"^RUN=sgd: 3 runs fit, such as .*; give the name of one$"):
        commexp.load("sgd")
    with pytest.raises(UserError, match=r"^RUN=seed=9: no run in outputs fits"):
        commexp.load("seed=9")


def test_the_frame_has_a_row_per_run_and_what_tells_them_apart(outputs: Path) -> None:
    runs = commexp.runs()
    frame = runs.frame
    assert frame["run"].tolist() == [run.name for run in runs]
    assert frame.set_index("run")["train_loss"].to_dict() == pytest.approx(
        {run.name: run.summary["train_loss"] for run in runs}, nan_ok=True
    )
    assert {"algo", "compress", "seed", "compress.k", "algo.lr", "algo.tau", "status"} <= {*frame.columns}
    assert not {"workers", "outputs", "launch.device"} & {*frame.columns}
    assert pd.api.types.is_numeric_dtype(frame["bytes_sent"])
    assert [type(runs[:2]), len(runs[:2]), runs[-1].name] == [type(runs), 2, frame["run"].iloc[-1]]


def test_the_list_shows_runs_and_sweeps(call: Desk, outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    commexp.sweep(*SWEPT)
    capfd.readouterr()
    status, out, err = call("list")
    assert (status, err) == (0, "")
    assert "algo=topk" not in out
    for path in outputs.glob("runs/*"):
        assert f"\n{path.name} " in out
    assert re.search(r"topk,regtopk-2-\S+ +4 completed +\d+ \w+ ", out)
    assert re.search(r"\n8 runs, [\d.]+ [kM]B; 1 sweep, [\d.]+ [kM]B\n$", out)
    assert "diverged   distance" in out
    rows = list(csv.DictReader(io.StringIO(call("find", "algo=sgd", "--csv")[1])))
    assert len(rows) == 6
    assert {row["status"] for row in rows} == {"completed", "diverged"}


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
def test_a_table_leaves_out_what_matters_least(width: int) -> None:
    heads = ["run", "status", "settings", "size"]
    rows = [["sgd-topk-digits-0123abcd", "completed", "k=0.1 lr=0.5 seed=0 rounds=500 and so on", "12 kB"]]
    text = table(heads, rows, cut="settings", width=width)
    assert all(len(line) <= max(width, 24) for line in text.splitlines())
    shown = {200: 4, 80: 4, 60: 4, 40: 2, 20: 1}[width]
    assert text.splitlines()[0].split() == heads[:shown]


def test_a_killed_run_is_told_from_a_living_one(call: Desk, outputs: Path) -> None:
    run = commexp.load("algo=topk")
    run.set_meta(status="running")
    run.write("summary.json", "{}")
    assert commexp.load("status=interrupted") == run
    assert " interrupted " in call("list")[1]
    with run.locked():
        assert re.search(rf"{run.name} +running ", call("list")[1])
        rows = run.rows("metrics")
        run.write_rows("metrics", rows[:2])
        assert re.search(rf"{run.name} +running 50% ", call("list")[1])
        status, _, err = call("rm", "algo=topk", "--yes")
        assert status == 2
        assert (
            err
            == f"commexp: error: RUN={run.name}: is being run; end it first, or leave it out with 'status!=running'\n"
        )
    assert run.folder.is_dir()


def test_show_says_where_a_run_comes_from(call: Desk, outputs: Path) -> None:
    run = commexp.load("algo=topk")
    status, out, _ = call("show", run.name[-8:])
    assert status == 0
    assert out.startswith(f"{run.name}\nstatus:     completed\nfolder:     outputs/runs/{run.name}\n")
    assert re.search(r"^versions: +commexp=\S+ .*torch=\S+", out, flags=re.MULTILINE)
    assert re.search(r"^overrides: .*algo=topk", out, flags=re.MULTILINE)
    assert "| train loss " in out
    run.set_meta(command="\x1b[2J\u202e")
    assert "\x1b" not in call("show", run.name)[1]


def test_rm_lists_asks_and_removes(call: Desk, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {run.name for run in commexp.runs("algo=sgd")}
    for answer in ("n\n", "", "what\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        status, out, _ = call("rm", "algo=sgd")
        assert status == 1
        assert all(name in out for name in names)
        assert out.endswith("nothing removed\n")
    assert len(commexp.runs()) == 5
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert call("rm", "algo=sgd", "status=completed")[0] == 0
    assert found() == ["diverged", "dppf", "fedavg"]
    assert call("rm", "sgd", "dppf", "--yes")[0] == 0
    assert found() == ["fedavg"]
    assert [path.name for path in (outputs / "runs").iterdir()] == [run.name for run in commexp.runs()]


def test_rm_follows_no_link_out(call: Desk, outputs: Path, tmp_path: Path) -> None:
    kept = commexp.load("algo=dppf")
    elsewhere = tmp_path / "elsewhere" / "mine"
    shutil.move(kept.folder, elsewhere)
    os.symlink(elsewhere, kept.folder)
    run = commexp.load("algo=topk")
    os.symlink(elsewhere, run.folder / "figures")
    for word in (str(kept.folder), str(elsewhere), f"{run.folder}/../{kept.name}"):
        status, _, err = call("rm", word, "--yes")
        assert status == 2, word
        assert "is a link, or lies outside outputs" in err
    assert call("rm", kept.name, "--yes")[0] == 2
    assert call("rm", run.name, "--yes")[0] == 0
    assert sorted(path.name for path in elsewhere.iterdir() if path.suffix == ".csv") == sorted(
        path.name for path in kept.folder.glob("*.csv")
    )


def test_tail_prints_rows_as_they_come_and_ends_with_the_run(
    call: Desk, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = commexp.load("algo=topk")
    rows, waits = run.rows("metrics"), []
    run.write_rows("metrics", rows[:1])
    run.set_meta(status="running")

    def grow(seconds: float) -> None:
        """What the run does while tail waits."""
        waits.append(seconds)
        run.write_rows("metrics", rows[: len(waits) + 1])
        if len(waits) + 1 == len(rows):
            run.set_meta(status="completed")

    monkeypatch.setattr(desk.time, "sleep", grow)
    with run.locked():
        status, out, _ = call("tail")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"{run.name}: running 0%" or lines[0].startswith(f"{run.name}: running")
    assert lines[1].split()[0] == "rounds"
    assert [line.split()[0] for line in lines[2:-1]] == [str(row["round"]) for row in rows]
    assert lines[-1] == f"{run.name}: completed"
    assert len(waits) == len(rows) - 1
    assert call("tail", run.name)[1].splitlines()[1:] == lines[1:]


def test_tail_ends_with_130_at_ctrl_c(call: Desk, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = commexp.load("algo=topk")
    run.set_meta(status="running")

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(desk.time, "sleep", interrupted)
    with run.locked():
        assert call("tail")[0] == 130


def test_a_list_needs_neither_torch_nor_pandas(outputs: Path) -> None:
    code = (
        "import sys; from commexp.cli.runs import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        "    print(end.code, *({'torch', 'pandas', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "list"], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr


def test_a_strangers_folder_spoils_no_list(call: Desk, outputs: Path) -> None:
    bad = outputs / "runs" / "bad"
    shutil.copytree(commexp.load("algo=dppf").folder, bad)
    for name, content in {
        "meta.json": '{"status": 3, "started": [], "overrides": 7, "algo": {}, "metrics": 5}',
        "config.yaml": "a: &x [1]\nb: *x\n",
        "summary.json": '{"dist_to_opt": "\\u001b[2J", "train_loss": {}}',
    }.items():
        (bad / name).write_text(content)
        status, out, err = call("list")
        assert (status, err) == (0, "")
        assert "\x1b" not in out
        assert len(commexp.runs("algo=topk")) == 1
        assert len(commexp.runs().frame) == 6


def test_a_sweep_from_python_is_the_one_of_the_command_line(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from commexp.cli.run import main as commexp_main

    runs = commexp.sweep(*SWEPT)
    assert len(runs) == 4
    assert {run.status for run in runs} == {"completed"}
    assert runs.frame[["seed", "compress"]].to_numpy().tolist() == [
        [0, "topk"], [1, "topk"], [0, "regtopk"], [1, "regtopk"],
    ]  # fmt: skip
    (folder,) = (outputs / "sweeps").iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".md")}
    assert {"sweep.csv", "sweep.md", "runs.csv"} <= before.keys()
    monkeypatch.delenv("COMMEXP_SWEEP", raising=False)
    assert status_of(commexp_main, ["commexp", "-m", *SWEPT], monkeypatch) == 0
    assert [path.name for path in (outputs / "sweeps").iterdir()] == [folder.name]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert "COMMEXP_SWEEP" not in os.environ
    capfd.readouterr()


def test_bad_runs_of_a_sweep_are_rows_and_bad_words_run_nothing(outputs: Path) -> None:
    runs = commexp.sweep("algo.lr=0.1,1e12", *SMALL, "seed=5")
    assert runs.frame["status"].tolist() == ["completed", "diverged"]
    count = len(commexp.runs())
    for words, message in (
        (("algo=topk,nothing",), "algo=nothing: no such option"),
        (("seed=8,9", "rounds=0"), "rounds=0: must not be less than 1"),
        (("-m", "seed=8,9"), "-m: of the command line alone"),
        (("hydra/launcher=joblib", "seed=8,9"), "hydra/launcher=joblib: of the command line alone"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            commexp.sweep(*words)
    assert len(commexp.runs()) == count


def test_options_from_a_folder_of_ones_own(outputs: Path, tmp_path: Path) -> None:
    place = tmp_path / 'my "conf", é'
    (place / "compress").mkdir(parents=True)
    (place / "compress" / "mine.yaml").write_text("_target_: commexp.compressors.TopK\nk: 3\nerror_feedback: true\n")
    run = commexp.run("compress=mine", *SMALL, config_dir=place)
    assert run.config["compress"]["k"] == 3
    assert commexp.load("compress=mine") == run
    swept = commexp.sweep("compress=mine,topk", "seed=7", *SMALL, config_dir=str(place))
    assert [each.config["compress"]["k"] for each in swept] == [3, 0.01]
    with pytest.raises(UserError, match=r"^config_dir=nowhere: no such folder; "):
        commexp.run("compress=mine", config_dir="nowhere")


def test_what_was_typed_and_the_packages_are_kept(outputs: Path) -> None:
    meta: dict[str, Any] = commexp.load("algo=topk").meta
    assert {"algo=topk", "compress.k=2"} <= {*meta["overrides"]}
    assert {"numpy", "scikit-learn"} <= meta["packages"].keys()
