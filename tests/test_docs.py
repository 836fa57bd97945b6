"""The documentation: its commands and files work as they stand, its links lead somewhere, and it builds."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import status_of
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from registry import plan

from commexp.cli import check as checks
from commexp.cli import plan as plans
from commexp.cli import report as compare
from commexp.cli import run as cli
from commexp.cli import runs as at_hand
from commexp.config.schema import CONF
from commexp.launch.sweep import sweep_name
from commexp.run_folder import Run

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SMALLER = {f"rounds={n}": "rounds=10" for n in (20, 50, 100, 200, 1000)} | {"steps=80": "steps=16"}
SMALLER |= {"compress.k=0.2,0.4,0.6,0.8": "compress.k=0.2,0.6", "compress.k=0.1,0.01": "compress.k=0.1"}
SMALLER |= {"seed=0,1": "seed=0", "steps=60": "steps=10", "rounds=150": "rounds=10"}
SMALLER |= {
    "compress=none,fp16,sign,topk": "compress=none,topk",
    "0.95": "0.05",
    "--at bytes=1e6,1e7": "--at bytes=1e5",
}
GIVEN = (
    "make demo",
    "source .venv/bin/activate",
    "commexp --help",
    'eval "$(commexp -sc install=bash)"',
)  # see test_cli

Shell = Callable[[str], None]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the page's fenced blocks, in order."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def lines(text: str) -> Iterator[str]:
    yield from (line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#"))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Carries out a line of a page in an empty folder; our own commands in this process, with little to do."""
    ours = {
        "commexp": cli.main,
        "commexp-report": compare.main,
        "commexp-check": checks.main,
        "commexp-plan": plans.main,
        "commexp-runs": at_hand.main,
    }
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> None:
        words = shlex.split(line)
        if line == "export PYTHONPATH=.":
            monkeypatch.syspath_prepend(str(tmp_path))
        elif words[0] not in ours:
            subprocess.run(["bash", "-c", line], check=True)
        else:
            words = [str(p) for w in words for p in (sorted(tmp_path.glob(w)) if "*" in w else [SMALLER.get(w, w)])]
            assert not status_of(ours[words[0]], words, monkeypatch), line

    return call


def test_start_ends_with_a_figure_of_the_readers_own(
    shell: Shell, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = [line for kind, text in blocks("start") if kind == "sh" for line in lines(text)]
    sweep = next(shlex.split(c)[2:] for c in commands if c.startswith("commexp -m +experiment"))
    assert any(sweep_name(sweep) in c for c in commands), "the page says where the figure lies"
    smaller = sweep_name([SMALLER.get(w, w) for w in sweep])
    for command in commands:
        if command not in GIVEN:
            shell(command.replace(sweep_name(sweep), smaller))
    assert "final_against_compression.png" in capfd.readouterr().out
    assert (tmp_path / "outputs" / "sweeps" / smaller / "figures" / "final_against_compression.png").is_file()
    assert (tmp_path / "outputs" / "comparison" / "comparison.png").is_file()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"demo", "docs"} <= set(targets)


def test_extensions_work_as_they_stand(shell: Shell, tmp_path: Path) -> None:
    ran = 0
    for kind, text in blocks("extending"):
        if kind == "sh":
            for line in lines(text):
                if line == "commexp-check compressor my_codecs:FirstK":  # all checks of one codec are enough: Cyclic's
                    assert checks.one("my_codecs:FirstK")
                else:
                    shell(line)
                ran += line.startswith("commexp ")
        else:
            name = re.findall(r"^# (\S+\.(?:py|yaml))$", text, flags=re.MULTILINE)[0]
            assert len(text.splitlines()) <= 40
            (tmp_path / name).write_text(text)
    runs = {p.parent.name.rsplit("-", 1)[0] for p in tmp_path.glob("outputs/runs/*/summary.md")}
    assert {
        "sgd-firstk-digits",
        "sgd-cyclic-digits",
        "slowmo-fp16-digits",
        "dpsgd-none-digits",
        "sgd-cyclic-moons",
    } <= runs
    configs = {p.parent.name: Run(p.parent).config for p in tmp_path.glob("outputs/runs/*/summary.md")}
    parts = {config[group]["_target_"] for config in configs.values() for group in ("compress", "model", "partition")}
    assert {"my_codecs.FirstK", "twolayer.TwoLayer", "halves.Halves"} <= parts
    (halves,) = (Run(tmp_path / "outputs" / "runs" / n) for n, c in configs.items() if "first" in c["partition"])
    held = halves.table("partition").groupby("worker")["samples"].sum().to_numpy()
    assert held[:4].sum() == round(0.9 * held.sum())
    assert held[4:].min() > 0
    losses = [Run(p).metrics["train_loss"] for p in tmp_path.glob("outputs/runs/*-digits-*")]
    assert all(loss.iloc[-1] < loss.iloc[0] for loss in losses)
    (measured,) = (p.parent for p in tmp_path.glob("outputs/runs/measured-none-digits-*/summary.md"))
    assert "norm of the slow momentum" in (measured / "summary.md").read_text(encoding="utf-8")
    assert json.loads((measured / "meta.json").read_text(encoding="utf-8"))["metrics"][0]["name"] == "momentum_norm"
    assert ran >= 6


def test_the_readers_own_parts_work_as_they_stand(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    for kind, text in blocks("own"):
        file = re.match(r"# (\S+\.py)$", text, flags=re.MULTILINE)
        if file:
            (tmp_path / file[1]).write_text(text)
        elif kind == "python":
            monkeypatch.syspath_prepend(str(tmp_path))
            needed = {"transformers", "timm"} & {*re.findall(r"^(?:from|import) (\w+)", text, flags=re.MULTILINE)}
            if all(map(importlib.util.find_spec, needed)):
                exec(compile(text.replace('"steps=60"', '"steps=10"'), str(tmp_path / "script"), "exec"), {})
        else:
            for line in lines(text):
                if line.startswith("commexp") and "launch=torchrun" in line:
                    plan(*shlex.split(line)[1:]).check_processes(2, line)
                elif not line.startswith("torchrun"):  # see test_own_model.py
                    shell(line)
    runs = {p.parent.name.rsplit("-", 1)[0] for p in tmp_path.glob("outputs/runs/*/summary.json")}
    assert {"sgd-none-my-net", "sgd-topk-my-net", "diloco-none-my-net", "sgd-topk-module"} <= runs
    named, given = (Run(p) for p in tmp_path.glob("outputs/runs/diloco-none-my-net-*"))
    for column in ("train_loss", "test_loss", "test_accuracy"):
        assert named.metrics[column].tolist() == given.metrics[column].tolist()


def test_every_command_for_language_models_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("input.txt", "books/one.txt", "books/two.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        speeches = (f"Speaker {i} of {name}:\n" + "to be or not to be, " * 20 for i in range(12))
        (tmp_path / name).write_text("\n\n".join(speeches))
    (tmp_path / "shakespeare_bpe").mkdir()
    for name in ("train", "val"):
        np.arange(2000, dtype=np.uint16).tofile(tmp_path / "shakespeare_bpe" / f"{name}.bin")
    pages = (*blocks("language_models"), *blocks("low_communication"))
    commands = [line for kind, text in pages if kind == "sh" for line in lines(text)]
    assert len(commands) >= 19
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "commexp"
        words = [word for word in words if word != "-m"]
        for batch in BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), max_batch_size=None):
            for overrides in batch:
                made = plan(*overrides)
                if "dataset.path" in line:
                    seen = made.partition.split(made.dataset.load(2, 0, torch.float32), 2, 0)
                    assert all(len(rows) for rows in seen)


def test_every_command_for_a_cluster_composes() -> None:
    found = [line for kind, text in blocks("cluster") if kind == "sh" for line in lines(text) if "commexp" in line]
    assert len(found) >= 9
    for line in found:
        words = [w for w in shlex.split(line.partition("commexp ")[2]) if w != "-m" and "interval(" not in w]
        if "hydra/launcher=ray" in words and not importlib.util.find_spec("hydra_plugins.hydra_ray_launcher"):
            continue
        for batch in BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), max_batch_size=None):
            for overrides in batch:
                made = plan(*overrides)
                if "launch=torchrun" in overrides:
                    made.check_processes(made.config.launch.nproc, line)


def test_every_command_for_published_sets_composes() -> None:
    found = [shlex.split(line) for kind, text in blocks("libsvm") if kind == "sh" for line in lines(text)]
    assert len(found) == 3
    for _, *words in found:
        overrides = OverridesParser.create().parse_overrides([word for word in words if word != "-m"])
        for batch in BasicSweeper.split_arguments(overrides, max_batch_size=None):
            assert all(plan(*each).dataset.called for each in batch)


def test_every_command_of_the_comparison_at_equal_cost_is_understood() -> None:
    found = [shlex.split(line) for kind, text in blocks("comparing") if kind == "sh" for line in lines(text)]
    assert [words[0] for words in found] == ["commexp", *["commexp-report"] * 4]
    for batch in BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides(found[0][2:]), max_batch_size=None
    ):
        for overrides in batch:
            plan(*overrides)
    given = [
        (words[i], words[i + 1]) for words in found[1:] for i, word in enumerate(words) if word in ("--at", "--replay")
    ]
    assert compare.budgets([word for option, word in given if option == "--at"]).keys() == {"bytes_sent", "sim_seconds"}
    assert compare.described([word for option, word in given if option == "--replay"]).bandwidth == 100


def test_the_choice_of_a_compressor_works_as_it_stands(
    shell: Shell, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = [line for kind, text in blocks("choose") if kind == "sh" for line in lines(text)]
    assert [c.split()[0] for c in commands] == ["commexp-plan", "commexp", *["commexp-report"] * 2, "commexp-plan"]
    for command in commands:
        shell(command)
    assert capfd.readouterr().out.count("Recommended:") == 2
    assert "at 1 MB" in (tmp_path / "outputs" / "comparison" / "comparison.md").read_text(encoding="utf-8")
    assert "0.02" in (tmp_path / "outputs" / "mobile" / "replay.md").read_text(encoding="utf-8").splitlines()[0]
    found = [line for kind, text in blocks("running") if kind == "sh" for line in lines(text)]
    assert [line.split()[1] for line in found] == ["list", "find", "show", "tail", "rm"]
    for line in found:
        shell(line)
    assert [p.name.split("-")[1] for p in tmp_path.glob("outputs/runs/*-digits-*")] == ["topk"]


def test_every_claim_of_the_page_on_papers_is_one(capfd: pytest.CaptureFixture[str], shell: Shell) -> None:
    found = [line for kind, text in blocks("reproduce") if kind == "sh" for line in lines(text)]
    listed, named = (line for line in found if line.startswith("commexp-check claims"))
    shell(listed)
    known = re.findall(r"^(?:\* )?(\w+): ", capfd.readouterr().out, flags=re.MULTILINE)
    assert {*named.split()[2:]} <= {*known}


def test_links_lead_somewhere() -> None:
    for page in (*DOCS.glob("*.md"), *DOCS.glob("reference/*.md"), ROOT / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[docs]'")
    from sphinx.cmd.build import build_main

    pages = tmp_path / "docs"
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("conf.py"))
    with patch.object(sys, "path", [*sys.path]):
        status = build_main(["-W", "--keep-going", "-q", "-c", str(DOCS), str(pages), str(tmp_path / "html")])
    assert status == 0
    for path in pages.glob("reference/*.md"):
        committed = DOCS / "reference" / path.name
        assert committed.is_file(), "a page is missing: run make docs, and commit it"
        assert path.read_text("utf-8") == committed.read_text("utf-8"), (
            f"{path.name} is not that of the code: make docs"
        )
        assert (tmp_path / "html" / "reference" / f"{path.stem}.html").is_file()
    made = (tmp_path / "html" / "reference" / "compress.html").read_text(encoding="utf-8")
    assert "compress.mu" in made
    assert "Delta[j]" in made
    assert "commexp.compressors.RegTopK" in made


def test_no_option_and_no_key_is_undocumented() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md")}
    for path in CONF.rglob("*/*.yaml"):
        group, option = str(path.parent.relative_to(CONF)), path.stem
        on = [
            text
            for name, text in pages.items()
            if f"\n## {option}\n" in text and f"\n| `{group.replace('/', '.')}=` |" in text
        ]
        assert len(on) == 1, f"{group}={option}"
        what, *when = re.findall(rf"^\| \[`{option}`\]\(#{option}\) \| (.*) \|$", on[0], flags=re.M)[0].split(" | ")
        assert what, f"{group}/{option}.yaml: say at its head what it is"
        assert any(when) or group in ("dataset", "network", "network/compute", "experiment"), (
            f"{group}/{option}.yaml: When: ..."
        )
    keys = [row for text in pages.values() for row in re.findall(r"^\| `[\w.]+` \| .*$", text, flags=re.MULTILINE)]
    assert len(keys) > 400
    assert [row for row in keys if row.endswith("|  |")] == []
