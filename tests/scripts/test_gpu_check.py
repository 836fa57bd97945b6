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
    assert {"two processes by torchrun, Gloo", "the DDP hook", "resumed after kill -9 of a rank"} < checks.keys()
    assert {one["part"] for one in checks.values()} == {
        "codecs",
        "algorithms",
        "processes",
        "speed",
        "steps",
        "science",
    }
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

    checks = [("speed", "one", broken), ("speed", "two", dict), ("steps", "three", lambda: sys.exit(4))]
    results = script["carry_out"](checks)
    assert [one["status"] for one in results] == ["FAILED", "ok", "FAILED"]
    assert results[0]["reason"] == "RuntimeError: Expected all tensors to be on the same device"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FAILED", "ok", "FAILED"]
    over = script["carry_out"](checks, {"speed": -1.0, "steps": 60.0})
    assert [one["status"] for one in over] == ["skipped", "skipped", "FAILED"], "each part has a limit of its own"
    assert [one["check"] for one in script["carry_out"](checks, {"steps": 60.0})] == ["three"]


def test_a_part_that_is_run_again_takes_the_place_of_what_the_file_holds_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    kept, about = runpy.run_path(str(SCRIPT))["kept"], {"card": "no GPU", "tiny": True}
    checks = [{"part": part, "check": part} for part in ("codecs", "speed")]
    path = tmp_path / "found.json"
    path.write_text(json.dumps({**about, "checks": checks}), encoding="utf-8")
    assert kept(path, about, ["speed"]) == checks[:1]
    assert kept(path, {**about, "card": "another"}, ["speed"]) == []
    path.write_text("[", encoding="utf-8")
    assert kept(path, about, []) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert status_of(lambda: runpy.run_path(str(SCRIPT), run_name="__main__"), [str(SCRIPT)], monkeypatch) == 2
    assert "gpu_check: error: --device=cuda: torch finds no GPU; give --device cpu" in capsys.readouterr().err
