"""LIBSVM's data sets by name: what is looked for where, and that a file of other sizes is refused."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from registry import options, plan

from commexp.config.messages import UserError
from commexp.problems.datasets import LibSVM
from commexp.problems.datasets.libsvm_sets import SETS, PublishedFile, PublishedSet
from commexp.problems.sparse_rows import SparseRows
from commexp.run_folder import Run

ROOT = Path(__file__).parents[2]
PAGE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html"


def lines(labels: str, m: int, features: int = 4) -> bytes:
    """Sample i has feature i mod J."""
    return "".join(f"{labels.split()[i % 2]} {i % features + 1}:0.{i + 1}\n" for i in range(m)).encode()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of the same kinds as the published ones, with sizes that a test can write."""
    monkeypatch.setitem(SETS, "w8a", PublishedSet(PublishedFile("w8a", 12), 4, test=PublishedFile("w8a.t", 6)))
    monkeypatch.setitem(SETS, "mushrooms", PublishedSet(PublishedFile("mushrooms", 10), 4, (1.0, 2.0)))
    monkeypatch.setitem(SETS, "phishing", PublishedSet(PublishedFile("phishing", 10), 4, (0.0, 1.0)))


def load(name: str, root: Path, **fields: Any) -> Any:
    return LibSVM("", root=str(root), name=name, **fields).load(2, 0, torch.float64)


def test_the_documentation_has_every_fact() -> None:
    page = (ROOT / "docs" / "libsvm.md").read_text(encoding="utf-8")
    for name, known in SETS.items():
        cells = [f"`{name}`", ", ".join(file.name for file in known.files), f"{known.train.samples:,}"]
        cells += [f"{known.features:,}", f"{known.test.samples:,}" if known.test else ""]
        row = " | ".join([*cells, ", ".join(f"{label:g}" for label in known.labels)])
        assert f"| {row} |" in page.replace("|  |", "| |").replace("| |", "|  |"), name
    assert {*SETS} <= {*options("dataset")}, "each is chosen by its name"


@pytest.mark.usefixtures("small")
def test_a_set_is_read_from_its_files_plain_or_packed(tmp_path: Path) -> None:
    (tmp_path / "w8a.xz").write_bytes(lzma.compress(lines("1 -1", 12)))
    (tmp_path / "w8a.t.bz2").write_bytes(bz2.compress(lines("1 -1", 6, 3)))
    data = load("w8a", tmp_path)
    assert isinstance(data.train_x, SparseRows)
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((12, 4), (6, 4), 2)
    assert data.train_y.tolist() == [1, 0] * 6
    held_out = load("w8a", tmp_path, validation=4)
    assert (len(held_out.train_x), len(held_out.test_x)) == (8, 4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "labels"), [("mushrooms", "2 1"), ("phishing", "1 0")])
def test_any_two_labels_are_two_classes_and_a_share_is_held_out(name: str, labels: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(lines(labels, 10))
    data, again = load(name, tmp_path), LibSVM(str(tmp_path / name)).load(2, 0, torch.float64)
    assert (len(data.train_x), len(data.test_x)) == (8, 2)
    assert data.train_y.tolist() == again.train_y.tolist()
    assert data.train_y.sum() == 4
    assert (data.train_x.matrix != again.train_x.matrix).nnz == 0, "as by its path"
    whole = load(name, tmp_path, test_path=name)
    assert (len(whole.train_x), len(whole.test_x)) == (10, 10)
    assert whole.train_y.tolist() == [1, 0] * 5, "the larger label is the class 1"


OTHERS = {
    "w8a": (lines("1 -1", 11), "it has 11 samples, not 12"),
    "w8a too wide": (lines("1 -1", 12, 5), "its largest index is 5, not 4"),
    "w8a too narrow": (lines("1 -1", 12, 3), "its largest index is 3, not 4"),
    "w8a with other labels": (lines("1 0", 12), "its labels are 0 and 1, not -1 and 1"),
    "w8a with one label": (lines("1 1", 12), "its labels are 1, not -1 and 1"),
    "mushrooms": (lines("1 0", 10), "its labels are 0 and 1, not 1 and 2"),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", OTHERS)
def test_another_file_is_refused(kind: str, tmp_path: Path) -> None:
    (content, wrong), name = OTHERS[kind], kind.partition(" ")[0]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "w8a.t").write_bytes(lines("1 -1", 6))
    with pytest.raises(ValueError, match=r"; get it anew from ") as refusal:
        load(name, tmp_path)
    assert str(refusal.value) == (
        f"dataset.root={tmp_path}: {tmp_path / name} is not the published {name} ({wrong}); get it anew from {PAGE}, "
        "or give dataset=libsvm for files of your own"
    )


@pytest.mark.usefixtures("small")
def test_another_test_file_is_refused_and_one_of_your_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "w8a").write_bytes(lines("1 -1", 12))
    for content, wrong in ((lines("1 -1", 7), "7 samples, not 6"), (lines("1 -1", 6, 5), "index is 5, not 4")):
        (tmp_path / "w8a.t").write_bytes(content)
        with pytest.raises(ValueError, match=rf"w8a.t is not the published w8a.t \(.*{wrong}\); "):
            load("w8a", tmp_path)
    (tmp_path / "w8a.t").unlink()
    (tmp_path / "own").write_bytes(lines("1 -1", 3))
    assert len(load("w8a", tmp_path, test_path="own").test_x) == 3
    with pytest.raises(FileNotFoundError, match=r"^dataset.test_path=none: .* is missing; put a file in LIBSVM format"):
        load("w8a", tmp_path, test_path="none")


@pytest.mark.parametrize("name", SETS)
def test_what_is_not_there_is_named_with_its_place_and_page(name: str, tmp_path: Path) -> None:
    both = [file.name for file in SETS[name].files]
    with pytest.raises(FileNotFoundError) as refusal:
        load(name, tmp_path)
    each = "each " if len(both) > 1 else ""
    assert str(refusal.value) == (
        f"dataset={name}: {both[0]} is not in {tmp_path}; put {' and '.join(both)} there, {each}plain, .gz, .bz2 or "
        f".xz, from {PAGE}"
    )


def test_a_tiny_file_under_a_published_name_is_refused(tmp_path: Path) -> None:
    """By the real sizes; of a9a by its sum."""
    for name, wrong in (
        ("phishing", "it has 10 samples, not 11,055"),
        ("a9a", "its SHA-256 sum, unpacked, is not 7ba5"),
    ):
        for file in SETS[name].files:
            (tmp_path / file.name).write_bytes(lines("1 0", 10))
        with pytest.raises(ValueError, match=r"is not the published") as refusal:
            load(name, tmp_path)
        assert wrong in str(refusal.value)


def test_wrong_keys_are_refused() -> None:
    for words, wrong in (
        (("dataset.name=w9a",), "dataset.name=w9a: no set of that name is known; give one of a9a, epsilon, "),
        (
            ("dataset.name=w8a", "dataset.path=x"),
            "dataset.path=x: dataset.name=w8a says it already; leave one of them ",
        ),
        (("dataset.name=w8a", "dataset.features=3"), "dataset.features=3: dataset.name=w8a says it already; leave"),
        (
            ("dataset.name=w8a", "dataset.zero_based=true"),
            "dataset.zero_based=True: dataset.name=w8a says it already; ",
        ),
    ):
        with pytest.raises(UserError) as refusal:
            plan("dataset=libsvm", *words)
        assert str(refusal.value).startswith(wrong)


@pytest.mark.usefixtures("small")
def test_a_run_is_named_after_the_set_and_its_content(run: Callable[..., Run], tmp_path: Path) -> None:
    def put(folder: Path, samples: bytes) -> str:
        folder.mkdir(exist_ok=True)
        (folder / "phishing").write_bytes(samples)
        return f"dataset.root={folder}"

    one, two = (put(tmp_path / place, lines("1 0", 10)) for place in "ab")
    name = plan("dataset=phishing", one).name
    assert name.split("-")[2] == "phishing"
    assert plan("dataset=phishing", two).name == name
    assert plan("dataset=libsvm", "dataset.name=phishing", one).name[-8:] == name[-8:], "another way to say the same"
    words = ("model=logistic_regression", "batch_size=null", "workers=2", "rounds=2", "eval_every=2")
    made = run("dataset=phishing", one, *words)
    assert made.name.startswith("sgd-none-phishing-")
    assert made.metrics["stationarity"].iloc[-1] < made.metrics["stationarity"].iloc[0]
    put(tmp_path / "b", lines("0 1", 10))
    assert plan("dataset=phishing", two).name != name
