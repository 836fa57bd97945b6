"""A run folder may come from a stranger: it runs nothing, hangs nothing, and spoils no report of other runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import Cli, status_of
from omegaconf import OmegaConf

from commexp.api import run_experiment
from commexp.check.quantities import Unmeasured, value
from commexp.cli.report import compare, main
from commexp.config.components import build
from commexp.config.messages import UserError
from commexp.config.plan import prepare
from commexp.experiment.replay import Replay
from commexp.network import Straggler
from commexp.report.comparison import Comparison, as_latex, as_markdown
from commexp.report.finish import finish
from commexp.report.page import write_page
from commexp.report.reading import DEPTH, read_runs
from commexp.report.sweep import write_sweep
from commexp.run_folder import Run

SMALL = ["dataset=linreg", "dataset.dim=8", "dataset.samples=10", "workers=4", "rounds=4", "eval_every=2", "seed=0"]
TOUCH = {"_target_": "subprocess.Popen", "args": ["touch", "PWNED"]}
ESCAPE = "\x1b]0;title\x07\x1b[2J\u202e"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a graph; to be copied."""
    words = [*SMALL, "algo=dpsgd", f"outputs={tmp_path_factory.mktemp('made')}", "launch.device=cpu"]
    return run_experiment(words, figures=False).folder


@pytest.fixture
def pair(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The run, and another that a test may spoil, in one folder; this process's own one is empty."""
    for name in ("good", "bad"):
        shutil.copytree(made, tmp_path / "runs" / name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "runs" / "good", tmp_path / "runs" / "bad"


def spoil(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))  # without aliases


ATTACKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "field of straggler": lambda c: c["straggler"].update(x=TOUCH),
    "straggler": lambda c: c.update(straggler=TOUCH),
    "schedule": lambda c: c["algo"].update(schedule=TOUCH),
    "field of schedule": lambda c: c["algo"]["schedule"].update(kind=TOUCH),
    "in a list": lambda c: c["algo"].update(betas=[TOUCH, 0.9]),
    "in a mapping in a list": lambda c: c["algo"].update(betas=[{"deep": [{"x": TOUCH}]}]),
    "through a module of ours": lambda c: c["straggler"].update(
        x={**TOUCH, "_target_": "commexp.experiment.summary.subprocess.Popen"}
    ),
    "a function of ours": lambda c: c.update(
        straggler={"_target_": "commexp.run_folder.write_atomic", "path": "PWNED"}
    ),
    "a class of ours of another kind": lambda c: c.update(straggler={"_target_": "commexp.network.Network"}),
    "a module that runs when it is imported": lambda c: c.update(straggler={"_target_": "evil.Straggler"}),
    "a module in our name": lambda c: c.update(straggler={"_target_": "commexp.network.evil.Straggler"}),
    "arguments": lambda c: c["straggler"].update(_args_=[TOUCH], _partial_=True, _recursive_=True),
    "no text": lambda c: c["straggler"].update(_target_=["subprocess.Popen"]),
    "an interpolation": lambda c: c["straggler"].update(slowdown="${touch:PWNED}"),
    "an interpolated name": lambda c: c["straggler"].update(_target_="${touch:PWNED}"),
    "the environment": lambda c: c["algo"]["schedule"].update(kind="${oc.env:HOME}"),
}


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module to be imported and a resolver to be called."""
    (tmp_path / "here" / "evil.py").write_text("open('PWNED', 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path / "here")
    OmegaConf.register_new_resolver("touch", lambda name: Path(name).touch(), replace=True)
    yield
    OmegaConf.clear_resolver("touch")


@pytest.mark.parametrize("shape", ATTACKS)
def test_a_config_of_a_run_runs_nothing(shape: str, pair: tuple[Path, Path], armed: None) -> None:
    _, bad = pair
    spoil(bad, ATTACKS[shape])
    with pytest.raises(UserError, match=r"^RUN=.*bad: (straggler|algo)"):
        compare([bad], Path("report"), ["network=mobile"], None)
    assert {path.name for path in Path().iterdir()} == {"evil.py"}


def test_the_others_are_priced_without_it(
    pair: tuple[Path, Path], tmp_path: Path, armed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = pair
    for name, shape in ATTACKS.items():
        spoil(shutil.copytree(good, tmp_path / "runs" / f"bad {name}"), shape)
    for name in ("rounds.csv", "traffic.csv", "topology.csv"):
        for shape in ("fifo", "device", "folder", "binary"):
            folder = shutil.copytree(good, tmp_path / "runs" / f"bad {name} {shape}")
            (folder / name).unlink()
            SHAPES[shape](folder / name)
    (bad / "rounds.csv").write_text("round,steps,batches,gradients\n1,1,1,1e300\n")
    compare([tmp_path / "runs"], tmp_path / "report", ["network=mobile"], None)
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if "| no run |" in line]
    assert len(rows) == len(ATTACKS) + 12 + 1
    assert all(f"{tmp_path / 'runs' / 'bad'}" in row for row in rows)
    assert "gradients of a round: 4e+300, more than" in told
    assert told.startswith("network=mobile\n\n| method")
    assert not Path("PWNED").exists()


def test_what_a_replay_does_not_need_is_named_and_not_made(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, bad = pair
    spoil(bad, lambda c: c.update(dataset=TOUCH, network={"compute": [TOUCH]}))
    compare([bad], Path("report"), ["network=mobile"], None)
    told = capsys.readouterr().err
    assert "note: bad: config.dataset._target_=subprocess.Popen: from outside commexp, and not made" in told
    assert "note: bad: config.network.compute[0]._target_=subprocess.Popen: from outside" in told
    assert not Path("PWNED").exists()


def test_a_replay_reads_no_file_that_the_config_names(run: Callable[..., Run], tmp_path: Path) -> None:
    done = run(*SMALL, "algo=ignore", "algo.first=2", "network.compute.kind=lognormal", "network.compute.seconds=0.01")
    fifo, plain = tmp_path / "fifo", run(*SMALL).config["algo"]
    os.mkfifo(fifo)
    spoil(done.folder, lambda c: c["network"]["compute"].update(kind="trace", trace=str(fifo)))
    own = prepare_network("network=mobile")
    with pytest.raises(UserError, match=r"depends on network\.compute"):
        Replay(done).seconds(own)
    spoil(done.folder, lambda c: c.update(algo=plain, network={**c["network"], "trace": str(fifo)}))
    assert Replay(done).seconds(own)[-1] > 0


def prepare_network(*words: str) -> Any:
    from commexp.api import compose_config

    return prepare(compose_config(words)).network


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("+algo.schedule._target_=subprocess.Popen +algo.schedule.args=[touch,PWNED]", "algo.schedule"),
        ("straggler=bernoulli straggler.p={_target_:subprocess.Popen,args:[touch,PWNED]}", "straggler.p"),
        ("algo.betas=[{_target_:subprocess.Popen,args:[touch,PWNED]}]", "algo.betas[0]"),
        ("+network.compute._target_=subprocess.Popen +network.compute.args=[touch,PWNED]", "network.compute"),
        ("network.links={0:{_target_:subprocess.Popen,args:[touch,PWNED]}}", "network.links.0"),
    ],
)
def test_on_the_command_line_too_components_stand_where_they_are_declared(word: str, key: str, entry: Cli) -> None:
    done = entry(*SMALL, *word.split())
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"commexp: error: {key}._target_=subprocess.Popen: commexp.")
    assert line.endswith("takes no component there; leave it out")
    assert not Path("PWNED").exists()


def test_a_component_in_a_field_that_is_not_there(entry: Cli) -> None:
    done = entry(*SMALL, "+straggler.x={_target_:subprocess.Popen,args:[touch,PWNED]}")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "straggler.x=" in done.stderr
    assert "no such key of NoStragglers" in done.stderr
    assert not Path("PWNED").exists()


@pytest.mark.parametrize(
    "metric",
    ["train_loss.to_csv('PWNED')", "@pd.io.common.os.system('touch PWNED')", "open('PWNED', 'w')", "9 ** 9 ** 9 ** 9"],
)
def test_a_claim_calculates_and_no_more(metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"round": [0, 1], "train_loss": [2.0, 1.0]})
    with pytest.raises(Unmeasured, match=r"metrics\.csv has no"):
        value({"a": frame}, of="a", metric=metric)
    assert not Path("PWNED").exists()
    assert value({"a": frame}, of="a", metric="-(1 - train_loss / 4) ** 2") == -0.5625


def test_own_components_of_a_run_are_made() -> None:
    node = {"_target_": "commexp.network.straggler.Markov", "slowdown": 3.0, "fall": 0.2}
    assert build(node, "straggler", Straggler, foreign=True) == build(node, "straggler", Straggler)  # type: ignore[type-abstract]


BOMB = "a: &a [x,x]\n" + "".join(
    f"{n}: &{n} [*{p},*{p}]\n" for p, n in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True)
)
READ = ("meta.json", "summary.json", "config.yaml", "metrics.csv", "traffic.csv", "topology.csv")


def put(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def hole(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**41)


SHAPES: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "hole": hole,
    "binary": put(bytes(range(256)) * 9),
    "deep": put('{"a":' * 100_000),
    "list": put("[1, 2]"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_file_of_a_bad_folder_spoils_the_others(shape: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    good, bad = pair
    for name in READ:
        folder = shutil.copytree(good, tmp_path / "runs" / name.replace(".", "_"))
        (folder / name).unlink()
        SHAPES[shape](folder / name)
    shutil.rmtree(bad)
    runs, left = read_runs([tmp_path / "runs"])
    assert not left
    found = {run.name: run.problem for run in runs}
    assert found.pop("good") == ""
    for name in READ:
        problem = found.pop(name.replace(".", "_"))
        assert problem.startswith(f"{name} cannot be read: "), (name, problem)
        assert "\n" not in problem
    assert not found
    text = as_markdown(Comparison(runs, left))
    assert text.count("| completed |") == 1
    assert text.count(", unreadable ") == len(READ)


HEAD = "round,step,bytes_sent,wall_seconds,sim_seconds"
CONTENTS = [
    ("config.yaml", BOMB, "holds an alias"),
    ("config.yaml", "seed: 1\ncompress: x\nalgo: {_target_: a}", "compress=x: no component"),
    ("config.yaml", "seed: 1\ncompress: {_target_: a, k: x}\nalgo: {_target_: a}", "could not convert string to float"),
    ("config.yaml", f"seed: 0x{'f' * 9999}\ncompress: {{_target_: a}}\nalgo: {{_target_: a}}", "Exceeds the limit"),
    ("config.yaml", "seed: 1\nx: [" + "1," * 100_001 + "]", "holds more than 100000 values"),
    ("meta.json", '{"status": ["completed"]}', "status: no text"),
    ("meta.json", f'{{"status": {"9" * 5000}}}', "Exceeds the limit"),
    ("summary.json", f'{{"bytes_sent": {10**400}}}', "int too large to convert to float"),
    ("summary.json", '{"round": []}', "float() argument must be"),
    ("summary.json", '{"status": "completed", "parameters": 0}', ""),
    ("meta.json", r'{"status": "completed", "seed": "\u00b2", "workers": "\ud83d"}', ""),
    ("metrics.csv", ",".join(f"c{n}" for n in range(10**6)) + "\n", "1000000 columns are more than the 1000"),
    ("metrics.csv", f"{HEAD},step\n0,0,0,0,0,0\n", "column step occurs twice"),
    ("metrics.csv", f"{HEAD},\n0,0,0,0,0,0\n", "a column has no name"),
    ("metrics.csv", f"{HEAD}\n0,0,0,0\n", "line 2: 4 cells under 5 columns"),
    ("metrics.csv", f"{HEAD}\n0,0,0,0,0,0\n", "line 2: 6 cells under 5 columns"),
    ("metrics.csv", "x" * 200_000 + "\n1\n", "field larger than field limit"),
    ("metrics.csv", f"{HEAD}\n1j,0,0,0,0\n", "line 2, column round: '1j' is no number"),
    ("topology.csv", "worker,neighbour,weight\n-1,0,1\n", "a line is no two workers and a weight"),
    ("topology.csv", "worker,neighbour,weight\n0,1,nan\n", "a line is no two workers and a weight"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "why"), CONTENTS, ids=lambda value: value[:30])
def test_what_is_in_a_file_is_checked(name: str, content: str, why: str, pair: tuple[Path, Path]) -> None:
    _, bad = pair
    (bad / name).write_text(content)
    runs, left = read_runs([bad.parent])
    problems = {run.name: run.problem for run in runs}
    assert problems["good"] == ""
    found = Comparison(runs, left)
    if not why:  # odd, but no harm
        assert problems["bad"] == ""
        write_page(found, bad.parent / "index.html")
        return
    assert problems["bad"].startswith(f"{name} cannot be read: {why}")
    assert "unreadable |" in as_markdown(found)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("meta.json", "workers", 10**12), "gradients of a round|topology|its tables"),
        (("meta.json", "processes", 0), "its tables cannot be read"),
        (("config.yaml", "workers", 10**12), "gradients of a round: .*, more than 100000000"),
        (("config.yaml", "seed", "x"), "'x' is no count"),
        (("config.yaml", "straggler", "x"), "its tables cannot be read"),
        (("traffic.csv", "repeats", 10**15), "mixings of a round: 1e[+]15, more than 100000"),
        (("traffic.csv", "exchange", "\x1b[2J"), "unknown; give one of all_reduce"),
        (("topology.csv", "neighbour", 10**12), "topology.csv: there is no worker 1000000000000 of 4"),
        (("rounds.csv", "round", 9), "its tables do not hold what a run's do"),
    ],
)  # fmt: skip
def test_tables_that_no_run_leaves_are_not_priced(
    change: tuple[str, str, Any], why: str, pair: tuple[Path, Path]
) -> None:
    _, bad = pair
    name, key, value = change
    if name.endswith(".csv"):
        rows = Run(bad).rows(name.removesuffix(".csv"))
        rows[-1][key] = value
        Run(bad).write_rows(name.removesuffix(".csv"), rows)
    elif name == "meta.json":
        Run(bad).set_meta(**{key: value})
    else:
        spoil(bad, lambda config: config.update({key: value}))
    if (name, key) == ("meta.json", "workers"):
        Replay(Run(bad))  # of which only the share of a process is taken
        return
    with pytest.raises(UserError, match=why):
        Replay(Run(bad)).seconds(prepare_network("network=mobile"))


@pytest.mark.drawn
def test_texts_of_a_run_are_shown_as_they_are(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = f"{ESCAPE}\n| <script>alert(1)</script> [x](javascript:y) \\ $\\frac$ `"
    folder = shutil.copytree(made, tmp_path / "runs" / f"a{ESCAPE}b\udcff\n")  # and a byte that is no letter
    run = Run(folder)
    run.set_meta(
        name=f"dpsgd-{nasty.replace('-', '')}-linreg", compress=nasty, error=nasty, status="failed", command=nasty
    )
    spoil(folder, lambda c: c["dataset"].update(_target_=f"a.{nasty}"))
    rows = [{**row, nasty: 1.0} for row in run.rows("metrics")]
    run.write_rows("metrics", rows)
    (tmp_path / "runs" / f"empty{ESCAPE}").mkdir()
    compare([tmp_path / "runs"], tmp_path / "report", [], None)
    told = capsys.readouterr()
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    text = (tmp_path / "report" / "comparison.md").read_text(encoding="utf-8")
    for shown in (told.out, told.err, text, page):
        assert not {"\x1b", "\x07", "\u202e"} & {*shown}
    assert r"\\x1b]0;title\\x07\\x1b[2J\\u202e" in told.out, "a backslash is one more in Markdown"
    assert "<script>alert" not in page
    assert "<script>alert" not in text.replace(r"\<", "")
    assert "](javascript" not in text.replace(r"]\(", "")
    assert {line.count(" | ") for line in text.split("\n\n")[0].splitlines()[2:]} == {
        text.splitlines()[0].count(" | ")
    }, "no cell is more than one"


def test_a_latex_row_may_begin_with_a_bracket(pair: tuple[Path, Path]) -> None:
    for folder, name in zip(pair, ("[1]", "*"), strict=True):
        Run(folder).set_meta(compress=name)
    runs, left = read_runs([pair[0].parent])
    text = as_latex(Comparison(runs, left))
    assert "\n{[}1]" in text
    assert "\n{*}" in text


def test_jobs_name_runs_beside_them_alone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    good, bad = pair
    jobs = tmp_path / "sweeps" / "s" / "jobs"
    jobs.mkdir(parents=True)
    job = {"overrides": {"compress": "none"}, "run": "good", "target": None, "error": None}
    spoilt: list[dict[str, Any]] = [{"run": name} for name in ("../../..", str(good), "", "..", "a/b", "\0", None, [1])]
    spoilt += [{"overrides": [1]}, {"target": "x"}, {"error": []}]
    for number, change in enumerate([{}, *spoilt, {"run": "bad"}]):
        (jobs / f"{number}.json").write_text(json.dumps({**job, **change}))
    (jobs / "90.json").write_text('{"a":' * 100_000)
    os.mkfifo(jobs / "91.json")
    (jobs / "92.json").symlink_to("/dev/zero")
    (jobs / "93.json").mkdir()
    (jobs / "x.json").write_text(json.dumps(job))
    (bad / "summary.json").unlink()
    os.mkfifo(bad / "summary.json")
    runs, left = read_runs([jobs.parent])
    assert [run.name for run in runs] == ["good", "bad"]
    assert len(left) == len(spoilt) + 5
    table, listed, named = write_sweep(jobs.parent)
    assert [row.run.name for row in listed] == ["good", "bad"]
    assert len(named) == len(spoilt) + 6
    assert "1 completed, 1 completed, unreadable" in table


@pytest.mark.drawn
def test_pictures_of_a_finished_run_wait_for_nothing(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, bad = pair
    for name in ("line", "plane", "plane_models", "partition", "gantt", "staleness"):
        (bad / f"{name}.csv").unlink(missing_ok=True)
        (bad / f"{name}.csv").write_text("t,train_loss\nx\n1,2,3\n")
    assert "completed" in finish(Run(bad))[0]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert all(line.startswith("commexp: note: bad: ") and "is not drawn" in line for line in told)
    os.mkfifo(bad / "fifo")
    os.replace(bad / "fifo", bad / "traffic.csv")
    with pytest.raises(ValueError, match=r"traffic\.csv cannot be read: not a regular file; rerun=true runs it again"):
        finish(Run(bad))


def test_a_run_that_has_not_evaluated_has_its_row(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, bad = pair
    for name in ("metrics.csv", "traffic.csv", "summary.json"):
        (bad / name).unlink()
    Run(bad).set_meta(status="running")
    compare([bad], tmp_path / "report", [], None)
    told = capsys.readouterr()
    assert any(line.startswith("| bad |") for line in told.out.splitlines())
    assert told.err == ""
    with pytest.raises(UserError, match=r"^RUN=.*bad: has no metrics.csv"):
        compare([bad], tmp_path / "report", ["network=mobile"], None)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--target", "98"], "--target=98: out of range; give a share in (0, 1] such as 0.95"),
        (["--target", "nan"], "--target=nan: out of range; give a share in (0, 1] such as 0.95"),
        (["--target-loss", "0"], "--target-loss=0: must be positive; give a loss such as 1.5"),
        (["--target", "0.9", "--target-loss", "1"], "argument --target-loss: not allowed with argument --target; see"),
        (["--target", "high"], "argument --target: invalid float value: 'high'; see commexp-report --help"),
        (["--out", "file"], "--out=file: cannot be written (File exists); give a folder that can"),
        (["--out", "file/in"], "--out=file/in: cannot be written (Not a directory); give a folder that can"),
        (["--out", "file", "--replay", "network=mobile"], "--out=file: cannot be written (File exists); give a"),
        (["--out", "/dev/full/report"], "--out=/dev/full/report: cannot be written (Not a directory); give a"),
        (["x" * 5000], f"RUN={'x' * 1900}"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], wrong: str, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("file").touch()
    folders = [] if words[0].startswith("x") else [str(pair[0])]
    assert status_of(main, ["commexp-report", *words, *folders], monkeypatch) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith(f"commexp: error: {wrong}")
    assert {path.name for path in Path().iterdir()} == {"file"}


def test_a_full_disk_is_one_line(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert status_of(main, ["commexp-report", "--out", "report", str(pair[0])], monkeypatch) == 2
    assert capsys.readouterr().err == (
        "commexp: error: --out=report: cannot be written (No space left on device); give a folder that can\n"
    )


def test_a_huge_foreign_tree_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(30):
        (tmp_path / "wide" / str(n) / "a").mkdir(parents=True)
    (tmp_path / "deep" / "/".join("d" * (DEPTH + 2))).mkdir(parents=True)
    monkeypatch.setattr("commexp.report.reading.MOST", 40)
    for name in ("wide", "deep"):
        assert status_of(main, ["commexp-report", str(tmp_path / name)], monkeypatch) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path / name}: no run with results (holds more than 40 folders, or {DEPTH} within each" in line
    assert sys.getrecursionlimit() > DEPTH
