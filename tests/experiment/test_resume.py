"""A resume is what was saved: damage, other runs' checkpoints and strange files are reported, never believed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from registry import interrupted, plan, untimed
from safetensors.torch import load_file, save_file

from commexp.experiment.execute import execute
from commexp.run_folder import Run

FLIPS = int(os.environ.get("COMMEXP_FLIPS", "12"))
WORDS = (
    "dataset=linreg", "model=linear_regression", "dataset.dim=8", "dataset.samples=10", "workers=4", "batch_size=null",
    "rounds=8", "eval_every=2", "save_every=2", "algo=topk", "compress.k=2",
)  # fmt: skip
TABLES = ("metrics", "traffic")
Tables = list[list[dict[str, str]]]
Resumed = Callable[[], tuple[str, list[str]]]


def go(outputs: Path, *words: str, halt: int = 0) -> Run:
    """The run; ``halt``: as if Ctrl-C had been pressed after so many rounds."""
    with interrupted(halt) if halt else nullcontext():
        return execute(plan(*WORDS, *words, f"outputs={outputs}"), torch.device("cpu"))


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tables]:
    """A run that was interrupted after 5 of 8 rounds, its checkpoints after 4 and 5; the tables of one that was not."""
    folder = tmp_path_factory.mktemp("halves")
    whole = go(folder / "whole")
    go(folder / "half", halt=5)
    return folder / "half", [untimed(whole.folder / f"{name}.csv") for name in TABLES]


@pytest.fixture
def half(halves: tuple[Path, Tables], tmp_path: Path) -> Run:
    """A copy of the interrupted run."""
    shutil.copytree(halves[0], tmp_path / "outputs")
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert sorted(p.name for p in folder.glob("checkpoints/*.json")) == ["state-4.json", "state-5.json"]
    return Run(folder)


@pytest.fixture
def resumed(half: Run, halves: tuple[Path, Tables], capfd: pytest.CaptureFixture[str]) -> Resumed:
    """Carries the copy to its end, and checks that its tables are the undisturbed ones; how it began ("anew", "after
    round 4", ...), and its notes."""

    def call() -> tuple[str, list[str]]:
        log = half.folder / "run.log"
        log.unlink(missing_ok=True)
        capfd.readouterr()
        assert go(half.folder.parent.parent).status == "completed"
        assert [untimed(half.folder / f"{name}.csv") for name in TABLES] == halves[1]
        told = log.read_text()
        began = told.partition("resumed ")[2].partition("\n")[0] if "resumed" in told else "anew"
        notes = [line for line in capfd.readouterr().err.splitlines() if "checkpoint" in line]
        assert all(line.startswith("commexp: note: ") for line in notes)
        assert ("no checkpoint is left" in "".join(notes)) == (began == "anew")
        return began, notes

    return call


def test_undisturbed(resumed: Resumed) -> None:
    assert resumed() == ("after round 5", [])


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda text: "".join(change(text.splitlines(keepends=True)))


HARM = {
    "only the header is left": lines(lambda rows: rows[:1]),
    "a row is lost": lines(lambda rows: rows[:2] + rows[3:]),
    "a row is doubled": lines(lambda rows: rows[:2] + rows[1:]),
    "a digit is another": lambda text: text[: text.rindex("1")] + "2" + text[text.rindex("1") + 1 :],
    "it is cut inside a line": lambda text: text[: len(text) // 2],
    "it is empty": lambda text: "",
    "another header": lambda text: text.replace("round", "runde", 1),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("harm", HARM)
def test_tables_that_are_not_as_they_were_saved(harm: str, name: str, half: Run, resumed: Resumed) -> None:
    path = half.folder / f"{name}.csv"
    path.write_text(HARM[harm](path.read_text()))
    began, notes = resumed()
    assert began in ("anew", "after round 4")  # the older checkpoint's part of the table may be whole
    assert f"checkpoint state-5.json does not fit {name}.csv (has changed) and is not used" in notes[0]


def test_rows_after_the_checkpoint_are_dropped(half: Run, resumed: Resumed) -> None:
    for name in TABLES:
        with open(half.folder / f"{name}.csv", "a") as file:
            file.write("6,all_reduce,peers,4,1,1.0,1")
    assert resumed() == ("after round 5", [])


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


JSON = {
    "completed": lambda text: text.replace('"completed": 5', '"completed": 7'),
    "a key": lambda text: text.replace('"completed"', '"complfted"'),
    "a length": lambda text: text.replace('"bytes": ', '"bytes": 1'),
    "null": lambda text: "null",
    "a list": lambda text: "[1, 2]",
    "a number": lambda text: "5",
    "nothing": lambda text: "",
    "deep": lambda text: deep(100_000),
    "an object": lambda text: "{}",
    "no text": lambda text: "\udcff",
}


@pytest.mark.parametrize("harm", JSON)
def test_an_index_that_is_not_as_it_was_saved(harm: str, half: Run, resumed: Resumed) -> None:
    path = half.folder / "checkpoints" / "state-5.json"
    path.write_bytes(JSON[harm](path.read_text()).encode(errors="surrogateescape"))
    assert resumed() == (
        "after round 4", ["commexp: note: checkpoint state-5.json is damaged and is not used"]
    )  # fmt: skip


def signed(about: dict[str, Any]) -> str:
    """An index as a stranger would make it, who knows how the sum is made."""
    about.pop("sha256", None)
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return json.dumps({**about, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def edited(half: Run, change: Callable[[Any], object]) -> None:
    path = half.folder / "checkpoints" / "state-5.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(signed(about))


FORGED: dict[str, Callable[[Any], object]] = {
    "a file elsewhere": lambda a: a["parts"][0].update(file="../state-5-0-00000000.safetensors"),
    "a file that is none of its own": lambda a: a["parts"][0].update(file="/dev/zero"),
    "a long one": lambda a: a["parts"][0].update(bytes=10**15),
    "parts of nothing": lambda a: a.update(parts=[]),
    "parts that are no objects": lambda a: a.update(parts=[None]),
    "workers from -1": lambda a: a["parts"][0].update(first=-1),
    "more workers": lambda a: a["parts"][0].update(end=8),
    "fewer workers": lambda a: a["parts"][0].update(end=2),
    "ids that are words": lambda a: a["parts"][0].update(first="0"),
    "other rounds": lambda a: a.update(completed=6),
    "no tables": lambda a: a.pop("tables"),
    "a table of another length": lambda a: a["tables"]["traffic"].update(bytes=17),
    "a table without a length": lambda a: a["tables"]["traffic"].pop("bytes"),
    "another run": lambda a: a.update(run="0" * 64),
}


@pytest.mark.parametrize("forged", FORGED)
def test_an_index_that_says_what_cannot_be(forged: str, half: Run, resumed: Resumed) -> None:
    edited(half, FORGED[forged])
    began, notes = resumed()
    assert (began, len(notes)) == ("after round 4", 1)


TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "none is left": lambda t: t.clear(),
    "one is missing": lambda t: t.pop("algorithm.x"),
    "one more": lambda t: t.update({"algorithm.y": torch.zeros(8)}),
    "another length": lambda t: t.update({"algorithm.x": torch.zeros(7, dtype=torch.float64)}),
    "another type": lambda t: t.update({"algorithm.x": torch.zeros(8, dtype=torch.float16)}),
    "a residual of another length": lambda t: t.update(
        {"algorithm.compressor.workers.residual": torch.zeros(4, 7, dtype=torch.float64)}
    ),
    "a residual of other workers": lambda t: t.update(
        {"algorithm.compressor.workers.residual": torch.zeros(3, 8, dtype=torch.float64)}
    ),
    "a clock of other workers": lambda t: t.update({"clocks.virtual": torch.zeros(5, dtype=torch.float64)}),
    "no clock": lambda t: t.pop("clocks.wall"),
    "a count below 0": lambda t: t.update({"algorithm.compressor.round": torch.tensor(-4)}),
}


@pytest.mark.parametrize("change", TENSORS)
def test_tensors_that_do_not_fit(change: str, half: Run, resumed: Resumed) -> None:
    (path,) = half.folder.glob("checkpoints/state-5-*.safetensors")
    tensors = load_file(path)
    assert {"algorithm.x", "algorithm.compressor.workers.residual", "clocks.virtual"} < tensors.keys()
    TENSORS[change](tensors)
    save_file(tensors, path)
    content = path.read_bytes()
    sums = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edited(half, lambda about: about["parts"][0].update(sums))
    began, notes = resumed()
    assert (began, len(notes)) == ("after round 4", 1)
    assert "state-5.json does not fit the run (" in notes[0]


@pytest.mark.parametrize("other", ["seed=1", "algo.momentum=0.5", "workers=2", "rounds=9"])
def test_checkpoints_of_another_run_are_not_taken(other: str, half: Run, resumed: Resumed, tmp_path: Path) -> None:
    strange = go(tmp_path / "other", other, halt=5)
    for path in (strange.folder / "checkpoints", *(strange.folder / f"{name}.csv" for name in TABLES)):
        target = half.folder / path.name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        path.rename(target)
    began, notes = resumed()
    assert began == "anew"
    assert "state-5.json is that of another run, or of another version of commexp, and is not used" in notes[0]


def test_strange_files_among_the_checkpoints(half: Run, resumed: Resumed) -> None:
    folder = half.folder / "checkpoints"
    (folder / "state-x.json").write_text("{}")
    (folder / "state-.json").write_text("{}")
    os.mkfifo(folder / "state-7.json")
    (folder / "state-6.json").symlink_to("/dev/zero")
    (folder / "state-99.json").mkdir()
    began, notes = resumed()
    assert (began, len(notes)) == ("after round 5", 5)


def test_bit_flips(halves: tuple[Path, Tables], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Anywhere in what a resume goes on from: the undisturbed tables come out, and damage is told."""
    chance, counts = random.Random(0), {"quiet": 0, "told": 0}
    for n in range(FLIPS):
        outputs = tmp_path / str(n)
        shutil.copytree(halves[0], outputs)
        (folder,) = (outputs / "runs").iterdir()
        files = [folder / f"{name}.csv" for name in TABLES] + sorted((folder / "checkpoints").iterdir())
        path = files[n % len(files)]
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        capfd.readouterr()
        assert go(outputs).status == "completed"
        assert [untimed(folder / f"{name}.csv") for name in TABLES] == halves[1], path
        err = capfd.readouterr().err
        assert "Traceback" not in err
        counts["told" if "commexp: note: checkpoint" in err else "quiet"] += 1
        older = path.name.startswith("state-4")  # nobody has looked at it: the newest one is sound
        assert older or "commexp: note: checkpoint" in err, path
    assert counts["told"] >= FLIPS // 2


def test_a_damaged_one_is_not_one_of_the_two_that_are_kept(half: Run) -> None:
    path = half.folder / "checkpoints" / "state-5.json"
    path.write_text("{}")
    outputs = half.folder.parent.parent
    assert go(outputs, halt=2).status == "interrupted"  # after round 6
    assert sorted(p.name for p in half.folder.glob("checkpoints/*.json")) == ["state-4.json", "state-6.json"]
