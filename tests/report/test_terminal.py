"""What terminals show: tables that fit, letters that they can write, pictures that are not drawn twice."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli, environment

from commexp.ranks import Sweep
from commexp.report import reading
from commexp.report.sweep import write_sweep
from commexp.report.tables import markdown
from commexp.report.terminal import NARROWEST, ROWS, in_terminal, writable, write_any_letter

HEADS = ["method", "test accuracy", "sent", "wire", "on the front"]
CELLS = [["topk k=0.01", "94.44% ± 0.39", "847 kB", "5.93 MB", "no: regtopk k=0.01"],
         ["regtopk k=0.01", "94.72% ± 0.10", "11.6 MB ± 0.12", "34.4 MB ± 0.19", "yes"]]  # fmt: skip


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *blocks: str) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    return in_terminal(blocks, "all.md").splitlines()


def test_a_table_that_fits_is_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    table = markdown(HEADS, CELLS, ["wire"])
    assert shown(monkeypatch, 200, table) == table.splitlines()


def test_minor_columns_go_first_and_a_line_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 80, markdown(HEADS, CELLS, ["wire", "sent"]))
    widths = {"method": 14, "test accuracy": 13, "sent": 14, "on the front": 18}
    assert lines[0] == f"| {' | '.join(head.ljust(width) for head, width in widths.items())} |"
    assert lines[-1] == "(not shown: wire; see all.md)"
    assert "wire" not in "".join(lines[:-1])


@pytest.mark.parametrize("width", [NARROWEST, 50, 66, 80])
def test_nothing_is_wider_and_no_number_is_torn_apart(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "A sentence that is much longer than the terminal is wide, whatever it may be, for it goes on and on."
    lines = shown(monkeypatch, width, markdown(HEADS, CELLS, ["wire", "sent"]), f"* {text}")
    assert max(map(len, lines)) <= width
    for part in ("94.44%", "± 0.39", "regtopk", "k=0.01"):
        assert any(part in line for line in lines), part
    bullet = next(i for i, line in enumerate(lines) if line.startswith("* "))
    assert " ".join(line.strip() for line in lines[bullet:]) == f"* {text}"
    assert all(line.startswith("  ") for line in lines[bullet + 1 :])


def test_a_long_table_ends_where_the_file_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 80, markdown(["n"], [[str(n)] for n in range(ROWS + 5)]))
    assert lines[-2:] == [f"| {ROWS - 1} |", "(not shown: 5 more rows; see all.md)"]


def test_letters_that_a_stream_cannot_write_are_spelled() -> None:
    ascii_, latin = (io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("ascii", "latin-1"))
    text = "1 ± 2 ≈ 3 grün \udcff 本"
    assert writable(text.replace("\udcff", ""), ascii_) == "1 +- 2 ~ 3 grun  ?"
    for stream, written in ((ascii_, b"1 +- 2 ~ 3 grun \xff ?"), (latin, b"1 \xb1 2 ~ 3 gr\xfcn \xff ?")):
        write_any_letter(stream)
        stream.write(text)
        stream.flush()
        assert stream.buffer.getvalue() == written  # type: ignore[attr-defined]


PRINTED = """
import sys
from commexp.launch.streams import lenient_streams
from commexp.report.tables import markdown
from commexp.report.terminal import in_terminal
with lenient_streams():
    print(in_terminal([markdown(["value", "x"], [["1 ± 2", "é"], ["13 ± 2", "e"]])]))
    print("≈ 2 µs", file=sys.stderr)
"""


def test_with_lang_c_everything_is_ascii(tmp_path: Path) -> None:
    """A process of its own: Python chooses the encoding when it starts."""
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    (tmp_path / "printed.py").write_text(PRINTED, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "printed.py")]
    done = subprocess.run(command, env={**environment(), **plain}, capture_output=True, timeout=60)
    assert done.stdout.decode("ascii").splitlines() == [
        "| value   | x |", "| ------- | - |", "| 1 +- 2  | e |", "| 13 +- 2 | e |",
    ]  # fmt: skip
    assert done.stderr == b"~ 2 us\n"


def test_time_left_of_a_sweep(tmp_path: Path) -> None:
    """Four of five jobs are to be run; two begin at once, and one ends after ten seconds."""
    (tmp_path / "jobs").mkdir()
    jobs = [Sweep(str(tmp_path), 5, (), begun=100.0, due="10111", job=job) for job in range(5)]
    assert jobs[0].left(101.0) is None
    for job in (0, 1, 2):
        jobs[job].note("B")
    assert jobs[0].left(105.0, share=0.5) == pytest.approx(5 / 1 * 3)
    jobs[0].note("E")
    assert jobs[2].left(110.0) == pytest.approx(10 * 3)
    assert jobs[3].place == "job 4/5"
    jobs[0].forget()
    assert jobs[0].left(120.0) is None


@pytest.mark.drawn
def test_a_sweep_that_is_shown_again_draws_what_is_missing_or_old(entry: Cli, tmp_path: Path) -> None:
    entry("-m", "seed=0,1", "dataset=linreg", "dataset.dim=10", "dataset.samples=20", "workers=2", "rounds=4")
    (folder,) = tmp_path.glob("outputs/sweeps/*/figures")

    def drawn() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.p*")}

    before = drawn()
    assert {"curves.png", "curves.pdf"} <= before.keys()
    write_sweep(folder.parent)
    assert drawn() == before
    (folder / "curves.pdf").unlink()
    write_sweep(folder.parent)
    again = drawn()
    assert again.keys() == before.keys()
    table = next(tmp_path.glob("outputs/runs/*/metrics.csv"))
    os.utime(table, ns=(table.stat().st_mtime_ns + 10**9,) * 2)
    write_sweep(folder.parent)
    assert all(again[name] < when for name, when in drawn().items())


def test_a_search_that_takes_long_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(5):
        (tmp_path / f"{n}").mkdir()
        (tmp_path / f"{n}" / "meta.json").write_text("{}")
    assert len(reading.read_runs([tmp_path])[0]) == 5
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reading, "SOON", -1.0)
    monkeypatch.setattr(reading, "OFTEN", -1.0)
    monkeypatch.setattr(reading, "MOST_RUNS", 3)
    runs, left = reading.read_runs([tmp_path])
    assert [run.name for run in runs] == ["0", "1", "2"]
    assert [one.why for one in left] == ["holds more than the 3 runs that are read; give some of the folders within it"]
    told = capsys.readouterr().err.splitlines()
    assert f"commexp: note: {tmp_path}: looking for runs: 2 folders looked at, 1 runs found" in told
    assert told[-1] == "commexp: note: 2 of 3 runs read"
