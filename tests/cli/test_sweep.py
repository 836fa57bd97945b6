"""Multirun: one aggregated table, nothing run twice, what was killed goes on, bad runs are rows."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pandas as pd
import pytest
from cli.test_cli import SMALL, start, wait_for, wait_until
from conftest import Cli
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from commexp.config.schema import CONF, register
from commexp.experiment import progress
from commexp.launch.sweep import Composer, register_resolvers
from commexp.report.reading import read_runs

SHORT = ("rounds=10", "eval_every=5", "model.width=8", "batch_size=2")
LINEAR = (*SMALL, "rounds=10", "eval_every=5")
K = "compress.k=4"
LESS = ("-m", "algo=topk,regtopk", "compress.k=0.1", "seed=0,1,2", *SHORT)
SWEEP = ("-m", "algo=topk,regtopk", "compress.k=0.1,0.01", "seed=0,1", "target_accuracy=0.05", *SHORT)


def folder_of(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    return folder


def stamps(tmp_path: Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in (tmp_path / "outputs" / "runs").glob("*/metrics.csv")}


@pytest.mark.drawn
def test_one_table_two_plots_and_nothing_runs_again(cli: Cli, entry: Cli, tmp_path: Path) -> None:
    done = cli(*SWEEP)
    assert done.returncode == 0, done.stderr
    folder = folder_of(tmp_path)
    table, runs = pd.read_csv(folder / "sweep.csv"), pd.read_csv(folder / "runs.csv")
    assert len(table) == 4
    assert len(runs) == 8
    assert set(table["count"]) == {2}
    for (algo, k), group in runs.groupby(["algo", "compress.k"]):
        row = table[(table["algo"] == algo) & (table["compress.k"] == k)].iloc[0]
        assert abs(row["test_accuracy"] - group["test_accuracy"].mean()) < 1e-12
        assert abs(row["test_accuracy_std"] - group["test_accuracy"].std(ddof=1)) < 1e-12
    assert {p.name for p in (folder / "figures").iterdir()} == {
        f"{name}.{kind}"
        for name in ("final_against_compression", "bytes_to_target", "curves", "pareto")
        for kind in ("png", "pdf")
    }
    assert "\\toprule" in (folder / "sweep.tex").read_text()
    assert (folder / "sweep.md").read_text() in done.stdout
    before = stamps(tmp_path)
    assert len(before) == 8
    again = entry(*SWEEP)
    assert again.returncode == 0
    assert stamps(tmp_path) == before
    assert (folder / "sweep.md").read_text() in again.stdout


def test_killed_in_the_middle_it_does_only_what_is_missing(entry: Cli, tmp_path: Path) -> None:
    process = start(tmp_path, *LESS)
    wait_for(tmp_path, "runs/*/run.log", at_least=3)  # the third has begun: two are done
    process.kill()
    process.communicate()
    finished = {
        p.parent.name
        for p in (tmp_path / "outputs" / "runs").glob("*/meta.json")
        if json.loads(p.read_text())["status"] == "completed"
    }
    before = stamps(tmp_path)
    assert 0 < len(finished) < 6
    assert entry(*LESS).returncode == 0
    after = stamps(tmp_path)
    assert len(after) == 6
    assert all(after[name] == before[name] for name in finished)
    assert pd.read_csv(folder_of(tmp_path) / "sweep.csv")["count"].sum() == 6


def test_ctrl_c_ends_the_sweep(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "seed=0,1,2", *SMALL, "rounds=100000", "eval_every=1")
    log = wait_for(tmp_path, "runs/*/run.log")
    wait_until(lambda: "round" in log.read_text())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 1


def test_a_diverged_run_is_a_row(entry: Cli, tmp_path: Path) -> None:
    done = entry("-m", "algo.lr=0.01,1e6", "+experiment=regtopk_linreg", "rounds=50")
    assert done.returncode == 3, done.stderr
    table = pd.read_csv(folder_of(tmp_path) / "sweep.csv")
    assert list(table["status"]) == ["1 completed", "1 diverged"]
    assert list(table["count"]) == [1, 0]
    assert "1 diverged" in done.stdout


def test_a_job_that_would_be_refused_refuses_the_whole_sweep(entry: Cli, tmp_path: Path) -> None:
    copies = ["algo=gradient_coding", "allocation=fractional", "allocation.d=2,3"]
    for args in (["workers=2,5000"], ["compress=topk", "comm.exchange=all_gather,all_reduce"], copies):
        done = entry("-m", *args, *SHORT)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert list(tmp_path.iterdir()) == []


BROKEN = """
from dataclasses import dataclass
from commexp.compressors import TopK

@dataclass
class Broken(TopK):
    def encode(self, a):
        raise OSError("the disk is on fire")
"""


def test_a_failed_run_is_a_row_and_the_others_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    done = cli("-m", "compress=topk", "compress._target_=broken.Broken,commexp.compressors.TopK", *LINEAR, K)
    assert done.returncode == 1
    assert "commexp: error: OSError: the disk is on fire" in done.stderr
    table = pd.read_csv(folder_of(tmp_path) / "sweep.csv")
    assert list(table["status"]) == ["1 failed", "1 completed"]
    (log,) = [p for p in (tmp_path / "outputs" / "runs").glob("*broken*/run.log")]
    assert "on fire" in log.read_text()


def test_a_single_value_for_a_field_of_a_swept_group(entry: Cli, tmp_path: Path) -> None:
    done = entry("-m", "algo=topk,regtopk", "compress.k=0.05", *LINEAR)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(p.read_text()) for p in (tmp_path / "outputs" / "runs").glob("*/summary.json")]
    assert len(runs) == 2
    assert len({r["payload_bytes"] for r in runs}) == 1
    logs = list((tmp_path / "outputs" / "runs").glob("*/run.log"))
    assert all("completed" in log.read_text() for log in logs), "a run of the sweep has no log"


def test_runs_with_different_metrics_share_a_table(entry: Cli, tmp_path: Path) -> None:
    done = entry("-m", "+experiment=regtopk_linreg,regtopk_toy", "rounds=20")
    assert done.returncode == 0, done.stderr
    assert (folder_of(tmp_path) / "figures" / "curves.png").is_file()


@pytest.mark.drawn
def test_a_sweep_over_another_number_is_drawn_against_it(entry: Cli, tmp_path: Path) -> None:
    assert entry("-m", "algo.lr=0.001,0.01", "+experiment=regtopk_linreg", "rounds=20").returncode == 0
    assert {p.stem for p in (folder_of(tmp_path) / "figures").iterdir()} == {"bits", "curves", "final", "pareto"}


def test_a_sweep_shows_where_its_runs_stopped(entry: Cli, tmp_path: Path) -> None:
    """Over two seeds, with a budget that ends the runs and one that does not."""
    done = entry("-m", "stop.bytes=400,1e9", "seed=0,1", *SMALL, "rounds=8", "eval_every=4", "target_loss=1e9")
    assert done.returncode == 0, done.stderr
    folder = folder_of(tmp_path)
    runs, table = (pd.read_csv(folder / f"{name}.csv", keep_default_na=False) for name in ("runs", "sweep"))
    assert list(runs["stopped_by"].str.partition(" (")[0]) == ["stop.bytes=400"] * 2 + [""] * 2
    assert list(table["stopped_by"]) == ["2 stop.bytes=400", ""]
    assert list(table["count"]) == [2, 2]
    assert done.stdout.count(": completed, stopped by stop.bytes=400 (") == 2
    text = (folder / "sweep.md").read_text()
    assert [row.split("|")[-2].strip() for row in text.splitlines()] == [
        "stopped by", text.splitlines()[1].split("|")[-2].strip(), "2 stop.bytes=400", "-",
    ]  # fmt: skip
    assert "sent to loss 1e+09" in text, "the target is reached at the start"
    assert set(table["bytes_to_target"]) == {0.0}


def test_a_criterion_that_a_job_cannot_meet_refuses_the_whole_sweep(entry: Cli, tmp_path: Path) -> None:
    done = entry("-m", "stop.accuracy=null,0.9", *SMALL)
    assert done.returncode == 2
    assert "stop.accuracy=0.9: nothing here has a test accuracy" in done.stderr
    assert list(tmp_path.iterdir()) == []


TINY = (*SMALL, "rounds=2", "eval_every=1")


@pytest.mark.parametrize(
    ("words", "tables", "runs"),
    [
        (["hydra.sweep.dir=mysweep", "hydra.sweep.subdir=${hydra.job.num}"], "mysweep", ["outputs"]),
        (["hydra.job.chdir=true"], "outputs/sweeps/*", ["outputs"]),
        (["outputs=oa,ob", "hydra.job.chdir=true"], "outputs/sweeps/*", ["oa", "ob"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_runs_and_tables_lie_where_they_are_asked_for(
    words: list[str], tables: str, runs: list[str], entry: Cli, tmp_path: Path
) -> None:
    done = entry("-m", "seed=0,1", *TINY, *words)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob(tables)
    assert len(pd.read_csv(folder / "runs.csv")) == 2 * len(runs)
    assert pd.read_csv(folder / "sweep.csv")["count"].tolist() == [2] * len(runs)
    for name in runs:
        assert len(list((tmp_path / name / "runs").glob("*/summary.json"))) == 2
    found = {p.parent.parent.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("metrics.csv")}
    assert found == {f"{name}/runs" for name in runs}
    again, left = read_runs([folder])
    assert (len(again), left) == (2 * len(runs), [])


def test_one_run_lies_below_where_it_was_typed(entry: Cli, tmp_path: Path) -> None:
    (tmp_path / "graph.txt").write_text("".join(f"{n} {(n + 1) % 8}\n" for n in range(8)))
    graph = ("algo=dpsgd", "topology=file", "topology.path=graph.txt", "hydra.run.dir=x", "hydra.job.chdir=true")
    done = entry(*TINY, *graph)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs" / "runs").glob("*/summary.json"))) == 1
    assert list((tmp_path / "x").iterdir()) == []


def test_each_job_says_that_it_begins(entry: Cli) -> None:
    done = entry("-m", "algo.lr=0.001,0.01", "seed=0", *TINY)
    first, ended, second, *_ = done.stdout.splitlines()
    assert re.fullmatch(r"sgd-none-linreg-\w{8}  job 1/2: algo.lr=0.001 seed=0", first)
    assert re.fullmatch(r"sgd-none-linreg-\w{8}  job 2/2, 00:\d\d left: algo.lr=0.01 seed=0", second)
    assert re.fullmatch(r"sgd-none-linreg-\w{8}: completed, distance to optimum \S+, \S+ kB sent", ended)


def test_a_sweep_without_a_row_says_so(entry: Cli, tmp_path: Path) -> None:
    done = entry("-m", "seed=0,1", *TINY, "launch.device=cuda:99")
    assert done.returncode == 2
    assert "no row" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_checking_composes_what_differs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same configs as Hydra composes, from two of its compositions."""
    words = [["algo=topk", f"compress.k={k}", "+preset.lr=0.1", f"model.width={w}"] for k in (1, 0.1) for w in (4, 8)]
    words += [["algo=sgd", "compress=none", "seed=3"]]
    register()
    register_resolvers()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        whole = [compose("config", overrides=each) for each in words]
        calls = []
        monkeypatch.setattr("commexp.launch.sweep.compose", lambda *a, **k: calls.append(k) or compose(*a, **k))
        composer = Composer()
        assert [composer.compose(each) for each in words] == whole
        assert len(calls) == 2
        with pytest.raises(HydraException, match="nokey"):
            composer.compose(["algo=topk", "compress.nokey=1"])


def test_a_long_check_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SOON", -1.0)
    assert list(progress.checking([1, 2, 3])) == [1, 2, 3]
    assert capsys.readouterr().err == ("commexp: note: checking the sweep's 3 jobs before the first begins: 1 done\n")
