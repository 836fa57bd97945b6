"""The run folder: atomic writes, exact numbers, one writer at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from commexp.rundir import Run, read_json, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full_disk(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    run = Run(tmp_path)
    rows = [{"round": 1, "x": 0.1 + 0.2, "kind": "up"}, {"round": 2, "x": 1e-300, "kind": "down"}]
    run.write_rows("metrics", rows)
    assert run.rows("metrics") == rows
    assert list(run.metrics.columns) == ["round", "x", "kind"]


def test_json_holds_what_json_cannot_say_as_words(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": float("nan"), "deep": [float("inf"), 1.5]})
    assert read_json(tmp_path / "a.json") == {"loss": "nan", "deep": ["inf", 1.5]}


def test_an_unreadable_json_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text('{"status": "compl')
    assert Run(tmp_path).status is None
    assert read_json(tmp_path / "none.json") == {}


def hold(folder: str, seconds: float) -> None:
    with Run(Path(folder)).locked():
        Path(folder, "held").touch()
        time.sleep(seconds)


def test_the_lock_keeps_others_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    holder = spawn.Process(target=hold, args=(str(tmp_path), 600.0))
    holder.start()
    end = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    waiter = spawn.Process(target=hold, args=(str(tmp_path), 0.0))
    waiter.start()
    waiter.join(timeout=3)
    assert waiter.is_alive(), "two held the lock at once"
    holder.kill()
    waiter.join(timeout=30)
    assert waiter.exitcode == 0
