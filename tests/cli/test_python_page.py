"""docs/python.md works as it stands: its scripts and commands, in order, on smaller runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from conftest import status_of
from test_docs import blocks, lines

from commexp.cli import run as commexp_command
from commexp.cli import runs as desk

SMALLER = '"rounds=4", "eval_every=2", "model.width=8", "batch_size=2"'


def test_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    ours = {"commexp": commexp_command.main, "commexp-runs": desk.main}
    told = {}
    for kind, text in blocks("python"):
        if kind == "python":
            code = text.replace('"rounds=20"', SMALLER)
            exec(compile(code, str(tmp_path / "script.py"), "exec"), {})
            continue
        for line in lines(text):
            words = shlex.split(line)
            assert not status_of(ours[words[0]], words, monkeypatch), line
            told[words[1]] = capfd.readouterr().out
    assert [*told] == ["pack", "unpack", "rerun"]
    assert told["rerun"].count("equal, bit for bit") == len(list(tmp_path.glob("outputs/reruns/runs/*"))) > 0
