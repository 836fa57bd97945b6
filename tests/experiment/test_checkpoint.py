"""Checkpoints: what comes back, from which split, and what damage does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from commexp.comm import Links
from commexp.compressors import ErrorFeedback, TopK
from commexp.experiment.checkpoint import load_checkpoint, load_worker, save_checkpoint, save_worker
from commexp.state import load_checked

ALONE = Links()


def state(t: int) -> dict[str, Tensor]:
    return {"x": torch.full((5,), float(t)), "a.workers.residual": torch.arange(8.0).view(4, 2) + t}


def save(folder: Path, completed: int) -> None:
    save_checkpoint(folder, completed, state(completed), range(4), ALONE)


def test_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7)
    completed, loaded = load_checkpoint(tmp_path, range(4), ALONE) or (0, {})
    assert completed == 7
    assert loaded.keys() == state(7).keys()
    assert all(torch.equal(state(7)[k], loaded[k]) for k in loaded)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for t in (7, 8, 20):
        save(tmp_path, t)
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["state-20.json", "state-8.json"]
    assert len(list(tmp_path.iterdir())) == 4


def test_other_workers_read_their_rows(tmp_path: Path) -> None:
    save(tmp_path, 3)
    _, loaded = load_checkpoint(tmp_path, range(1, 3), ALONE) or (0, {})
    assert torch.equal(loaded["a.workers.residual"], state(3)["a.workers.residual"][1:3])
    assert torch.equal(loaded["x"], state(3)["x"])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one bit flipped": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_one_is_reported_and_the_one_before_is_used(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save(tmp_path, 7)
    save(tmp_path, 8)
    (newest,) = tmp_path.glob("state-8-*.safetensors")
    DAMAGE[how](newest)
    completed, loaded = load_checkpoint(tmp_path, range(4), ALONE) or (0, {})
    assert completed == 7
    assert torch.equal(loaded["x"], state(7)["x"])
    assert capsys.readouterr().err == f"commexp: note: checkpoint {newest.name} is damaged and is not used\n"
    (older,) = tmp_path.glob("state-7-*.safetensors")
    DAMAGE[how](older)
    assert load_checkpoint(tmp_path, range(4), ALONE) is None


def test_an_index_that_cannot_be_read_is_damage_too(tmp_path: Path) -> None:
    save(tmp_path, 7)
    save(tmp_path, 8)
    (tmp_path / "state-8.json").write_text('{"completed": 8, "par')
    assert (load_checkpoint(tmp_path, range(4), ALONE) or (0, {}))[0] == 7


def test_a_save_that_is_cut_short_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 7)
    save(tmp_path, 8)
    (tmp_path / "state-8.json").unlink()  # the parts are written before the file that names them
    assert (load_checkpoint(tmp_path, range(4), ALONE) or (0, {}))[0] == 7
    save(tmp_path, 9)
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["state-7.json", "state-9.json"]
    assert not list(tmp_path.glob("state-8-*"))


WORKER: dict[str, Callable[[Path], object]] = {
    "one bit flipped": lambda folder: flip(next(folder.glob("worker-1-*"))),
    "gone": lambda folder: next(folder.glob("worker-1-*")).unlink(),
    "no index": lambda folder: (folder / "worker-1.json").write_text("[]"),
    "another worker's": lambda folder: (folder / "worker-0.json").rename(folder / "worker-1.json"),
}


@pytest.mark.parametrize("how", WORKER)
def test_what_a_worker_keeps_is_checked_too(how: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of workers that have a process each; without it a codec begins with no memory."""
    for n, run in ((0, "a"), (1, "a"), (2, "b")):
        save_worker(tmp_path, n, {"workers.residual": torch.full((1, 5), 1.0 + n)}, run)
    found: list[dict[str, Tensor]] = []
    load_worker(tmp_path, 1, "a", found.append)
    load_worker(tmp_path, 3, "a", found.append)  # it has kept nothing
    assert [one["workers.residual"].tolist() for one in found] == [[[2.0] * 5]]
    assert capsys.readouterr().err == ""
    load_worker(tmp_path, 2, "a", found.append)
    WORKER[how](tmp_path)
    load_worker(tmp_path, 1, "a", found.append)
    assert len(found) == 1
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2
    assert all(note.startswith("commexp: note: checkpoint worker-") for note in notes)


class Serving(Links):
    """As if process 1 kept version ``kept`` of its workers by itself."""

    kept = 0

    @property
    def versions(self) -> dict[int, int]:
        return {1: self.kept}


def test_a_checkpoint_belongs_to_what_other_processes_keep(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Where one of them died before it had kept its part, the checkpoint before is taken, if there is one; the last two
    versions are kept, and another one is better than none."""
    links, found = Serving(), list[float]()
    for t in (4, 7, 8):
        links.kept = t
        save_checkpoint(tmp_path, t, state(t), range(4), links, "a")
        if t < 8:
            save_worker(tmp_path, 1, {"workers.residual": torch.full((1, 5), float(t))}, "a", t)
    assert len(list(tmp_path.glob("worker-1-*"))) == 2
    assert (load_checkpoint(tmp_path, range(4), links, "a") or (0, {}))[0] == 7
    assert "state-8.json lacks what process 1 had not yet kept" in capsys.readouterr().err
    for wanted in (7, 4, 8):
        load_worker(tmp_path, 1, "a", lambda one: found.append(float(one["workers.residual"][0, 0])), wanted)
    assert found == [7, 4, 7]
    assert "goes on with version 7, as 8 was not kept" in capsys.readouterr().err
    (tmp_path / "worker-1.json").unlink()
    assert (load_checkpoint(tmp_path, range(4), links, "a") or (0, {}))[0] == 7, "the last one is better than none"


def test_what_a_codec_keeps_is_loaded_though_it_held_nothing_before() -> None:
    codec = ErrorFeedback(TopK(k=2))
    residual = torch.full((1, 5), 0.5, dtype=torch.float64)
    kept = {"round": torch.tensor(3), "workers.residual": residual}
    load_checked(codec, kept, 5, 1, dtype=torch.float64)
    assert torch.equal(codec.state_dict()["workers.residual"], residual)
