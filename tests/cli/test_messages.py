"""Whatever is typed wrong is answered by one line that says what to type: a table of mistakes and of the words that
the line must hold, with | between them."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
from conftest import Cli, status_of

from commexp import __version__
from commexp.api import run_experiment
from commexp.cli import check as checking
from commexp.cli import report as compare
from commexp.cli import run as cli
from commexp.config.messages import UserError
from commexp.config.overrides import legible

#: words of Hydra, its lexer and OmegaConf, which say nothing to whoever has typed a mistake
FOREIGN = (
    "mismatched input", "LexerNoViableAlt", "no viable", "extraneous", "Could not", "Error merging", "Error parsing",
    "ConfigAttributeError", "ConfigKeyError", "hydra.cc", "full_key", "object_type", "ListConfig", "AnyNode",
    "incompatible", "of type 'str'", "could not be converted", "Union[", "BasicSweeper", "Traceback", "null='",
)  # fmt: skip
TINY = ("dataset=linreg", "dataset.dim=10", "dataset.samples=10", "workers=2", "rounds=2", "eval_every=1")

MISTAKES = {
    # how it is written
    "algo=topk, compress.k=0.1": "algo=topk,:|give algo=topk",
    "algo=topk,,sgd": "give algo=topk,sgd",
    "compress=topk compress.k=0.1, 0.2": "give compress.k=0.1,0.2",
    "'seed=1 rounds=3'": "give seed=1 rounds=3",
    "seed = 3": "give seed=3",
    "seed= 3": "give seed=3",
    "'seed = 3'": "give seed=3",
    "seed==3": "give seed=3",
    "k:0.1": "give compress.k=0.1",
    "compress.k=[0.1": "give compress.k=[0.1]",
    "compress.k=0.1]": "give compress.k=0.1",
    "seed=(1": "give seed=1",
    "'outputs=\"x'": "give outputs=x",
    "outputs=“x”": "typographic quotes|give outputs=x",
    "–m seed=0,1": "give -m",  # noqa: RUF001
    "—multirun seed=0,1": "give --multirun",
    "seed": "give seed=0",
    "compress.k": "give compress.k=0.01",
    "a#b": "a#b:|is not key=value",
    "größe=3": "größe=3:|no such key",
    "run": "run:|is not key=value",
    "''": "leave it out",
    "=3": "has no key",
    "'seed=${'": "give a value, such as seed=0",
    # flags
    "--k=v": "give compress.k=v",
    "--seed=3": "give seed=3",
    "-k 0.1": "give compress.k=0.1",
    "--rounds 5": "give rounds=5",
    "--multirunn": "did you mean --multirun?",
    "--foo": "--foo:|no such flag",
    "--cfg foo": "'job'",
    "--package nope --cfg job": "--package nope:|no such part",
    "--config-name nope": "leave it out",
    "--experimental-rerun x.pkl": "repeat the command",
    "--resolve": "--resolve",
    "a=b -m c=d": "a=b:|no such key",
    # keys
    "lr=0.1": "give algo.lr=0.1",
    "k=0.1": "give compress.k=0.1",
    "p=0.1": "give algo.p=0.1, straggler.p=0.1 or topology.p=0.1",
    "+seed=3": "+seed=3:|give seed=3",
    "+algo=topk": "+algo=topk:|give algo=topk",
    "++x=1": "x=1:|no such key",
    "+algo.foo=1": "algo.foo=1:|no such key",
    "comm.foo=1": "comm.foo=1:|no such key",
    "hydra.foo=1": "hydra.foo=1:|no such key",
    "compress@foo=topk": "no such key",
    "~network": "network=...",
    "~seed": "give seed=0",
    "~nokey": "~nokey:|no such key",
    "cluster=slurm": "give +cluster=slurm",
    "experiment=regtopk_toy": "give +experiment=regtopk_toy",
    "+experiment=regtopk_tay": "+experiment=regtopk_tay:|did you mean regtopk_toy",
    # options of groups
    "compress=tpok": "did you mean topk",
    "algo=[sgd]": "give algo=sgd",
    "algo=3": "algo=3:|such as algo=sgd",
    "network=null": "network=null:|such as network=ethernet_1g",
    "algo=": "algo=:|no such option",
    "hydra/launcher=foo": "hydra/launcher=foo:|no such option",
    # values of the wrong type
    "seed=abc": "is not a whole number|give seed=0",
    "seed=": "is not a whole number|give seed=0",
    "seed=null": "is not a whole number|give seed=0",
    "workers=2.5": "is not a whole number|give workers=8",
    "rounds=1e3": "give rounds=1000",
    "rounds=true": "give rounds=500",
    "debug=maybe": "give debug=true or debug=false",
    "outputs=null": "give outputs=outputs",
    "launch.timeout=soon": "not a number",
    "target_accuracy=95%": "not a number, or null|give target_accuracy=0.5",
    "track=tensorboard": "give track=[tensorboard]",
    "comm=server": "such as comm.",
    "model=mlp model.hidden=128": "model.hidden=128:|give model.hidden=[128]",
    "model=mlp model.hidden=[64,x]": "model.hidden=[64,x]:|a list of whole numbers|give model.hidden=[128]",
    "model=mlp model.hidden=64,64": "give model.hidden=[64,64]",
    "algo.lr=fast": "algo.lr=fast:|not a number|give algo.lr=",
    "algo.lr=null": "algo.lr=null:|not a number",
    "algo.lr=true": "algo.lr=true:|not a number",
    "compress=topk compress.k=abc": "compress.k=abc:|not a number|give compress.k=0.",
    "gossip.rounds=x": "gossip.rounds=x:|not a whole number|give gossip.rounds=1",
    "compress.feedback.decay=x": "compress.feedback.decay=x:|not a number|give compress.feedback.decay=1.0",
    "network.compute=3": "network.compute=3:|a section",
    # values that mean nothing
    "'seed=${nokey}'": "seed=${nokey}:|there is no nokey|such as seed=0",
    "'algo.lr=${oc.env:NO_SUCH}'": "algo.lr=${oc.env:NO_SUCH}:|NO_SUCH",
    "'seed=${seed}'": "seed=${seed}:|such as seed=0",
    "rounds=99999999999": "rounds=99999999999:|longer than a run can be",
    "steps=2000000000": "steps=2000000000:|longer than a run can be|10000000",
    "model=mlp model.hidden=[99999999999]": "model.hidden=99999999999:|too large",
    "dataset=linreg dataset.dim=99999999999": "dataset.dim=99999999999:|too large",
    "compress=topk compress.k=nan": "compress.k=nan:",
    "workers=-1": "workers=-1:",
    "launch.device=gpu": "give launch.device=cuda",
    "launch.device=gpu:1": "give launch.device=cuda:1",
    "launch.device=tpu": "give auto, cpu or cuda",
    # sweeps
    "seed=0,1": "add -m",
    "'seed=range(a,b)'": "such as seed=1,2,3",
    "-m 'seed=range(0,0)'": "no jobs",
    "-m 'seed=interval(0,1)'": "give values",
    "-m algo=topk,": "give algo=topk",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_one_line_says_what_to_type(typed: str, entry: Cli, tmp_path: Path) -> None:
    done = entry(*shlex.split(typed))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("commexp: error: ")
    for words in MISTAKES[typed].split("|"):
        assert words in line
    assert not [word for word in FOREIGN if word in line], line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "starts"),
    [
        ({"RANK": "x"}, "RANK=x: not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: not a whole number from 1 up"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000: "),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK=: not a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2: not below WORLD_SIZE=2"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE=2: MASTER_ADDR and MASTER_PORT"),
    ],
    ids=str,
)
def test_what_no_launcher_sets(
    environment: dict[str, str], starts: str, entry: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    done = entry(*TINY)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"commexp: error: {starts}")
    assert "unset" in line
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=starts.partition(":")[0]):
        run_experiment(TINY)


@pytest.mark.parametrize("name", ["ausgänge", "a#b=c"])
def test_a_folder_of_any_name_needs_no_quotes(name: str, entry: Cli, tmp_path: Path) -> None:
    done = entry(*TINY, f"outputs={name}")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(list((tmp_path / name / "runs").glob("*/summary.json"))) == 1


def test_the_home_folder(entry: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere/home")
    assert "/nowhere/home/x" in entry("dataset=libsvm", "dataset.path=~/x").stderr


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("outputs=a (b)", 'outputs="a (b)"'),
        ("outputs=!x;y", 'outputs="!x;y"'),
        ("outputs=oä,b", 'outputs="oä",b'),
        ("track=[a#b,c]", 'track=["a#b",c]'),
    ],
)
def test_quotes_are_put_where_hydra_wants_them(word: str, read: str) -> None:
    assert legible([word]) == [read]


@pytest.mark.parametrize(
    "word",
    ["compress.k=0.1", "algo=topk,regtopk", "model.hidden=[64,64]", "seed=range(0,3)", "outputs='a b'", "x={a:1}"],
)
def test_what_hydra_can_read_is_left_alone(word: str) -> None:
    assert legible([word]) == [word]


def test_flags_may_stand_anywhere(entry: Cli) -> None:
    done = entry(*TINY, "-m", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert "2/2" in done.stdout


PROGRAMS = {"commexp": cli.main, "commexp-report": compare.main, "commexp-check": checking.main}


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_command_says_its_version(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(PROGRAMS[program], [program, "--version"], monkeypatch) == 0
    assert capsys.readouterr().out == f"commexp {__version__}\n"


@pytest.mark.parametrize(
    "words",
    ["commexp --help", "commexp --cfg job", "commexp-report --help", "commexp-check claims --list"],
)
def test_a_reader_may_leave(words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    assert status_of(PROGRAMS[words.split()[0]], words.split(), monkeypatch) == 0
    stream.close()  # as Python does at its end
    assert capfd.readouterr().err == ""


def test_a_run_goes_on_when_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    monkeypatch.setattr(sys, "stderr", None)  # as after 2>&-
    assert status_of(cli.main, ["commexp", *TINY], monkeypatch) == 0
    assert len(list(tmp_path.glob("outputs/runs/*/summary.json"))) == 1
