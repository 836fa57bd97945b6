"""What the README, the pages to which its parts have moved, and the YAML files tell people to type works."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from registry import plan

from commexp.check.claim import load, picked
from commexp.cli import plan as plans
from commexp.cli import report as reports
from commexp.config.schema import CONF

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^\| [^|]*\? \| `(commexp\S* [^`]*)` \|$", README, flags=re.MULTILINE)
PAGES = [
    *(DOCS / f"{name}.md" for name in ("start", "choose", "reproduce", "running", "results")),
    *DOCS.glob("reference/*.md"),
]
FILES = [ROOT / "README.md", ROOT / "Makefile", CONF / "config.yaml", *PAGES]
TEXTS = ["\n".join(QUESTIONS), *(path.read_text(encoding="utf-8") for path in FILES)]
HEADS = [p.read_text(encoding="utf-8").split("\ndefaults", 1)[0] for p in sorted(CONF.glob("*/*.yaml"))]
MY_MODULE = """
import torch


def make_model():
    return torch.nn.Linear(4, 2)


def make_data():
    return (torch.randn(20, 4), torch.arange(20) % 2), (torch.randn(10, 4), torch.arange(10) % 2)
"""


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[str]:
    """Every ``commexp ...`` line, comments and explanations after two spaces cut off."""
    lines = [line for text in (*TEXTS, *HEADS) for line in re.sub(r"\\\n *", "", text).splitlines()]
    found = {
        m[1] for line in lines if (m := re.match(r'\s*(?:# |@echo " +)?commexp ((?:-m )?\+?\w+[/.\w]*=\S.*)', line))
    }
    return sorted({re.split(r"  |\"", command)[0].strip() for command in found})


def jobs(command: str) -> Iterator[list[str]]:
    """Of a sweep every value once, not with every other."""
    words = [w for w in shlex.split(command, comments=True) if w != "-m"]
    parsed, seen = OverridesParser.create().parse_overrides(words), set()
    for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None):
        for overrides in batch:
            if not seen.issuperset(overrides):
                seen.update(overrides)
                yield overrides


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 20
    assert any(c.startswith("-m ") for c in commands())


def test_every_yaml_is_in_one() -> None:
    words = {word.removeprefix("+") for command in commands() for overrides in jobs(command) for word in overrides}
    assert {f"{p.parent.name}={p.stem}" for p in CONF.glob("*/*.yaml")} - words == set()


@pytest.mark.parametrize("command", commands())
def test_every_command_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("graph.txt", "weights.txt", "held.txt"):  # a reader's own files
        (tmp_path / name).write_text("0 1")
    (tmp_path / "my_module.py").write_text(MY_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    for overrides in jobs(command):
        assert plan(*overrides).name.count("-") == 3


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (own,), (tensors,) = blocks(ROOT / "README.md"), blocks(DOCS / "reference" / "compress.md")
    made: dict[str, Any] = {}
    exec(own.replace("steps=60", "steps=10"), made)
    assert {"test_loss", "test_accuracy"} <= {*made["run"].metrics}
    exec(tensors, {})


def test_each_question_has_a_command_that_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """commexp: as every command here; commexp-check compressor: see the page on extensions in test_docs."""
    asked = {" ".join(words[:2]) if "check" in words[0] else words[0]: words for words in map(shlex.split, QUESTIONS)}
    assert [*asked] == ["commexp", "commexp-plan", "commexp-report", "commexp-check compressor", "commexp-check claims"]
    monkeypatch.setattr(sys, "argv", asked["commexp-plan"])
    plans.main()
    assert "Recommended:" in capsys.readouterr().out
    at = [b for a, b in pairwise(asked["commexp-report"]) if a == "--at"]
    assert reports.budgets(at).keys() == {"bytes_sent", "sim_seconds"}
    assert picked(load()[1], asked["commexp-check claims"][2:])
    assert asked["commexp-check compressor"][2] == "my_codecs:FirstK"
