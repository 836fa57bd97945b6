"""The checks for a GPU, taken through on the CPU; and what goes wrong in one of them stays there."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm
from conftest import status_of
from registry import options

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"


def test_every_codec_and_algorithm_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(subprocess, "Popen", warm.Popen)
    words = [str(SCRIPT), "--device", "cpu", "--tiny", "--out", "made/found.json"]
    assert status_of(lambda: runpy.run_path(str(SCRIPT), run_name="__main__"), words, monkeypatch) == 0
    found = json.loads((tmp_path / "made" / "found.json").read_text(encoding="utf-8"))
    checks = {one["check"]: one for one in found["checks"]}
    wanted = {f"codec {n}" for n in options("compress")} | {f"algorithm {n}" for n in options("algo")}
    assert wanted < checks.keys()
    assert {"two processes by torchrun, Gloo", "the DDP hook"} < checks.keys()
    assert {one["status"] for one in checks.values()} == {"ok"}, capsys.readouterr().out
    assert found["card"] == "no GPU"
    assert found["torch"] == torch.__version__
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(checks) + 2, lines


def test_one_failure_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = runpy.run_path(str(SCRIPT))

    def broken() -> dict[str, object]:
        raise RuntimeError("Expected all tensors\nto be on the same device")

    checks = [("one", broken), ("two", dict), ("three", lambda: sys.exit(4))]
    results = script["carry_out"](checks)
    assert [one["status"] for one in results] == ["FAILED", "ok", "FAILED"]
    assert results[0]["reason"] == "RuntimeError: Expected all tensors to be on the same device"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FAILED", "ok", "FAILED"]
    script["carry_out"].__globals__["LIMIT"] = -1.0
    assert [one["status"] for one in script["carry_out"](checks)] == ["skipped"] * 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert status_of(lambda: runpy.run_path(str(SCRIPT), run_name="__main__"), [str(SCRIPT)], monkeypatch) == 2
    assert "gpu_check: error: --device=cuda: torch finds no GPU; give --device cpu" in capsys.readouterr().err
