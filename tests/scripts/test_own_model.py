"""scripts/own_model.py as a user runs it: with objects, with names over processes, in a torchrun of one's own; and
networks of transformers and timm. The network has batch norm and dropout."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm
from conftest import environment
from launch.processes import ranks, wait_for
from PIL import Image
from registry import untimed

from commexp.run_folder import Run

SCRIPT = Path(__file__).parents[2] / "scripts" / "own_model.py"
SHORT = ("steps=20", "eval_every=10", "launch.device=cpu")
EXACT = "comm.deterministic=true"

TORCHRUN = """
import sys

import own_model

import commexp

train, test = own_model.make_data()
run = commexp.run(
    *sys.argv[1:], model=own_model.make_model, train=train, test=test, loss=own_model.loss,
    metrics={"accuracy": own_model.accuracy}, name="my-net",
)
print(run.status, run.meta["processes"], len(run.metrics))
"""

SEVERAL = """
import own_model

import commexp

train, test = own_model.make_data()
for words in (["algo=diloco"], ["algo=sgd"], ["algo=gradient_coding", "straggler=bernoulli"]):
    run = commexp.run(
        *words, "workers=2", "rounds=2", "eval_every=2", "launch.device=cpu", model=own_model.make_model, train=train,
        test=test,
    )
    print(run.status)
"""

GPT2 = """
import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import commexp


def make_model():
    return GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=32, n_positions=8, bos_token_id=0, eos_token_id=0)
    )


first = torch.randint(32, (120, 1), generator=torch.Generator().manual_seed(0))
tokens = (first + 3 * torch.arange(8)) % 32
whole = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
train, test = ({key: t[rows] for key, t in whole.items()} for rows in (slice(100), slice(100, None)))
commexp.run(*sys.argv[1:], model=make_model, train=train, test=test, name="gpt2")
"""


def python(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``python COMMAND`` in ``folder``, with the folder of the script on Python's path."""
    done: subprocess.CompletedProcess[str] = warm.run(
        [sys.executable, *command],
        cwd=folder,
        env={**environment(), **path(), **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done


def path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])}


def run_in(folder: Path) -> Run:
    (found,) = (p.parent for p in folder.glob("runs/*/summary.json"))
    return Run(found)


def command() -> list[str]:
    """The words of the command in the script's docstring."""
    text = ast.get_docstring(ast.parse(SCRIPT.read_text(encoding="utf-8"))) or ""
    paragraph = next(p for p in text.split("\n\n") if "commexp model=module" in p)
    variable, program, *words = shlex.split(paragraph.replace("\\\n", " "))
    assert (variable, program) == ("PYTHONPATH=scripts", "commexp")
    return words


def test_it_trains_and_prints_its_table_and_folder(tmp_path: Path) -> None:
    done = python(tmp_path, str(SCRIPT), *SHORT)
    assert done.returncode == 0, done.stderr
    run = run_in(tmp_path / "outputs")
    assert done.stdout.splitlines()[-1] == str(run.folder)
    assert run.name.startswith("diloco-none-my-net-")
    rows = [line.split() for line in done.stdout.splitlines()[:4]]
    assert rows[0] == ["step", "train_loss", "test_loss", "test_accuracy", "bytes_sent"]
    assert [row[0] for row in rows[1:]] == ["0", "10", "20"]
    for column in ("train_loss", "test_loss"):
        assert run.metrics[column].is_monotonic_decreasing
    assert 0 <= run.metrics["test_accuracy"].min() < run.metrics["test_accuracy"].max() <= 1
    again = python(tmp_path, str(SCRIPT), *SHORT)
    assert again.stdout == done.stdout
    assert run_in(tmp_path / "outputs").meta["started"] == run.meta["started"], "it is not run again"


def test_its_command_gives_the_same_bits_in_two_processes(tmp_path: Path) -> None:
    runs = []
    for words in ((), ("launch=torchrun", "launch.nproc=2")):
        outputs = tmp_path / str(len(words))
        done = python(tmp_path, "-m", "commexp", *command(), *SHORT, EXACT, f"outputs={outputs}", *words)
        assert done.returncode == 0, done.stderr
        runs.append(run_in(outputs))
    one, two = runs
    assert (one.meta["processes"], two.meta["processes"]) == (1, 2)
    assert one.name == two.name
    assert len(untimed(one.folder / "metrics.csv")) == 3
    for file in ("metrics.csv", "traffic.csv"):
        assert untimed(two.folder / file) == untimed(one.folder / file)
    assert one.metrics["train_loss"].iloc[-1] < one.metrics["train_loss"].iloc[0]


@pytest.mark.parametrize("words", [("algo=diloco", "algo.tau=5"), ("algo=topk", "compress.k=0.1")], ids=" ".join)
def test_objects_in_a_torchrun_of_ones_own_give_the_same_bits(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TORCHRUN, encoding="utf-8")
    words = ("workers=4", *words, *SHORT, EXACT)
    alone = python(tmp_path, "train.py", *words, "outputs=alone")
    assert alone.returncode == 0, alone.stderr
    together = wait_for(ranks(2, ["train.py", *words, "outputs=together"], tmp_path, **path()), 120)
    assert [status for status, _, _ in together] == [0, 0], together
    assert together[0][1].split() == ["completed", "2", "3"]
    one, two = run_in(tmp_path / "alone"), run_in(tmp_path / "together")
    assert one.name == two.name
    for file in ("metrics.csv", "traffic.csv"):
        assert untimed(two.folder / file) == untimed(one.folder / file)
    assert one.metrics["test_accuracy"].nunique() > 1


def test_a_script_in_a_torchrun_of_ones_own_carries_out_several_runs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SEVERAL, encoding="utf-8")
    done = wait_for(ranks(2, ["train.py"], tmp_path, **path()), 120)
    assert [status for status, _, _ in done] == [0, 0], done
    assert done[0][1].split() == ["completed"] * 3


@pytest.mark.parametrize(
    "words",
    [("algo=diloco", "algo.tau=5", "algo.lr=0.01"), ("compress=topk", "algo.optimizer=adamw", "algo.lr=0.01")],
    ids=" ".join,
)
def test_gpt2_of_transformers(words: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install -e '.[transformers]'")
    (tmp_path / "train.py").write_text(GPT2, encoding="utf-8")
    done = python(tmp_path, "train.py", *words, "workers=4", "steps=40", "batch_size=8", "launch.device=cpu")
    assert done.returncode == 0, done.stderr
    rows = run_in(tmp_path / "outputs").metrics
    assert rows["test_loss"].iloc[0] == pytest.approx(np.log(32), abs=0.2)  # nothing is known of 32 tokens
    assert rows["test_loss"].iloc[-1] < rows["test_loss"].iloc[0] - 1


def test_a_network_of_timm_on_a_folder_of_images(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    noise = np.random.default_rng(0)
    for name, colour in {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(16):
            pixels = noise.normal(colour, 40, (36, 36, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    words = ["model=module", "model.factory=timm.create_model", "+model.arguments.model_name=test_resnet"]
    words += ["+model.arguments.num_classes=3", "dataset=folder", "dataset.root=photos", "dataset.size=32"]
    words += ["workers=2", "batch_size=4", "rounds=8", "eval_every=8", "algo.lr=0.02", "compress=fp16", "name=timm"]
    done = python(tmp_path, "-m", "commexp", *words, "launch.device=cpu")
    assert done.returncode == 0, done.stderr
    run = run_in(tmp_path / "outputs")
    assert run.meta["sources"].keys() == {"timm"}
    assert run.metrics["test_loss"].iloc[-1] < run.metrics["test_loss"].iloc[0]
