"""Feature vectors and classes from files in LIBSVM format, a9a among them, and scikit-learn's breast cancer data."""

from __future__ import annotations

import bz2
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from registry import plan

from commexp.config.messages import UserError
from commexp.problems import Data, ProblemContext
from commexp.problems.datasets import A9A, BreastCancer, LibSVM
from commexp.problems.models import LogisticRegression
from commexp.problems.sparse_rows import SparseRows
from commexp.run_folder import Run

PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
SHARED = Path(__file__).parents[3] / "shared" / "data"  # beside the repository
TEXT = """# a comment
+1 1:0.5 4:-2  # another
-1 2:1e-3

-1 qid:3 1:7 3:1
+1
"""


def write(folder: Path, text: str = TEXT, name: str = "data", suffix: str = "") -> str:
    (folder / (name + suffix)).write_bytes(PACKERS[suffix](text.encode()))
    return str(folder / (name + suffix))


def load(path: str, *, dtype: torch.dtype = torch.float64, **fields: Any) -> Data:
    data = LibSVM(path, **fields).load(2, 0, dtype)
    assert isinstance(data.train_x, SparseRows)
    assert isinstance(data.test_x, SparseRows)
    return data


def many(labels: tuple[str, ...], m: int = 50) -> str:
    """Sample i has i + 1 as its first feature."""
    return "".join(f"{labels[i % len(labels)]} 1:{i + 1} {i % 5 + 2}:1\n" for i in range(m))


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_file_is_read_as_it_says(suffix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    path = write(tmp_path, suffix=suffix)
    data = load(path, test_path=write(tmp_path, "-1 2:3\n", "test", suffix), dtype=dtype)
    expected = [[0.5, 0, 0, -2], [0, 1e-3, 0, 0], [7, 0, 1, 0], [0, 0, 0, 0]]
    assert data.train_x.matrix.dtype == str(dtype).removeprefix("torch.")
    assert torch.equal(data.train_x.dense(dtype), torch.tensor(expected, dtype=dtype))
    assert torch.equal(data.test_x.dense(dtype), torch.tensor([[0, 3, 0, 0]], dtype=dtype))
    assert data.train_y.tolist() == [1, 0, 0, 1]
    assert data.test_y is not None
    assert (data.test_y.tolist(), data.test_y.dtype, data.classes) == ([0], torch.long, 2)


@pytest.mark.parametrize("features", [None, 9])
@pytest.mark.parametrize("larger", ["path", "test_path"])
def test_both_files_have_the_same_features(features: int | None, larger: str, tmp_path: Path) -> None:
    paths = {key: write(tmp_path, f"1 2:1\n2 {5 if key == larger else 3}:1\n", key) for key in ("path", "test_path")}
    data = load(**paths, features=features)
    assert data.train_x.shape == data.test_x.shape == (2, features or 5)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(("+1", "-1"), 2), (("1", "0"), 2), (("2", "1"), 2), (("0.5", "-3.25"), 2), (("7", "3", "-1", "3.0"), 3)],
)
def test_labels_become_classes_in_ascending_order(labels: tuple[str, ...], classes: int, tmp_path: Path) -> None:
    path = write(tmp_path, many(labels))
    data = load(path, test_path=path)
    place = sorted(set(map(float, labels)))
    assert data.classes == classes
    assert data.train_y.tolist() == [place.index(float(labels[i % len(labels)])) for i in range(50)]


def test_the_share_held_out_is_always_the_same_and_balanced(tmp_path: Path) -> None:
    path = write(tmp_path, many(("1", "2", "2", "2", "2")))
    data, again = load(path, test=0.3), LibSVM(path, test=0.3).load(8, 5, torch.float64)
    assert torch.equal(data.test_x.dense(torch.float64), again.test_x.dense(torch.float64))
    assert data.test_y is not None
    assert (len(data.train_y), torch.bincount(data.test_y).tolist()) == (35, [3, 12])
    first = torch.cat([x.dense(torch.float64)[:, 0] for x in (data.train_x, data.test_x)])
    assert first.sort().values.tolist() == list(range(1, 51))
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert y.tolist() == [int((i - 1) % 5 > 0) for i in x.dense(torch.float64)[:, 0].tolist()]


BAD = {
    "x 1:1": "the label 'x' is not a finite number; ",
    "1,2 1:1": "the label '1,2' is not a finite number; ",
    "nan 1:1": "the label 'nan' is not a finite number; ",
    "1 1:1 2": "'2' is not index:value; ",
    "1 a:1": "'a:1' is not index:value; ",
    "1 1:": "'1:' is not index:value; ",
    "1 0:1": "index 0 is out of range; ",
    "1 -4:1": "index -4 is out of range; ",
    "1 3000000000:1": "index 3000000000 is out of range; ",
    "1 99:1": "index 99 is out of range; indices go up to dataset.features=9",
    "1 3:1 2:1": "index 2 comes after 3; ",
    "1 3:1 3:1": "index 3 comes after 3; ",
    "1 3:inf": "'3:inf' is not finite",
    "1 3:1e39": "'3:1e39' is not finite in the run's dtype; ",
    "1 \x07\xff:1\x00": "'\\x07",
}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named_by_its_number(line: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path, TEXT + line + "\n-1 zzz\n", suffix=suffix)
    with pytest.raises(ValueError, match="; ") as refusal:
        load(path, features=9, dtype=torch.float32)
    assert str(refusal.value).startswith(f"dataset.path={path}: line 7: {BAD[line]}")
    assert str(refusal.value).isprintable()


def test_a_label_of_the_test_file_alone_is_refused(tmp_path: Path) -> None:
    path, test = write(tmp_path), write(tmp_path, "1 1:1\n0 1:1\n", "test")
    with pytest.raises(ValueError, match="; ") as refusal:
        load(path, test_path=test)
    assert str(refusal.value).startswith(f"dataset.test_path={test}: line 2: the label 0 is not in the training file; ")


FILES = {
    "": "holds no sample; ",
    "# nothing\n\n": "holds no sample; ",
    "1\n-1\n": "no sample has a feature; ",
    "1 1:1\n1 2:1\n": "every label is 1; ",
    "1 1:1\n\n2 2:1\n2.5 2:1\n": "line 4: the label 2.5 is number 3 of 3 different ones; labels must be classes",
    "".join(f"{i} 1:1\n" for i in range(1002)): "line 1001: the label 1000 is number 1001 of 1002 different ones; ",
}


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_files_without_classes_or_features_are_refused(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match="; ") as refusal:
        load(path)
    assert str(refusal.value).startswith(f"dataset.path={path}: {FILES[text]}")


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_archives_are_refused(suffix: str, damage: str, tmp_path: Path) -> None:
    path = Path(write(tmp_path, many(("1", "2"), 2000), suffix=suffix))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes({"cut": whole[:-20], "changed": whole[:middle] + b"oops" + whole[middle + 4 :]}[damage])
    with pytest.raises(ValueError, match=r"^dataset.path=.*(cannot be read \(.*\); get it anew|line \d+: )") as refusal:
        load(str(path))
    assert "\n" not in str(refusal.value)


def test_too_few_of_a_class_to_hold_some_out(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^dataset.path=.*: line 4: the label 1 is the only one of its class, .*; rem"
    ):
        load(write(tmp_path, "2 1:1\n2 2:1\n\n1 1:1\n2 3:1\n"))
    with pytest.raises(ValueError, match=r"^dataset.test=0.9: too few samples of a class .*; give dataset.test_path"):
        load(write(tmp_path, many(("1", "2"), 4)), test=0.9)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_third_label_is_named_by_its_line_where_two_are_wanted(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path, "# none\n" + many(("5", "-1")) + "\n" + many(("5", "2")), suffix=suffix)
    wrong = "line 54: the label 2 is the third, and model=logistic_regression tells two apart; give a file with two lab"
    for test in (None, path):
        data = load(path, test_path=test)
        assert data.classes == 3
        with pytest.raises(ValueError, match=rf"^dataset.path={path}: {wrong}"):
            LogisticRegression().problem(data, ProblemContext([], [], None, 0, torch.device("cpu"), torch.float64))
    assert load(write(tmp_path, many(("5", "-1")))).third_class == ""


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"path": ""}, "path=: empty; "),
        ({"path": "a", "test": 1.0}, "test=1.0: out of range; "),
        ({"path": "a", "features": 0}, "features=0: must not be less than 1; "),
    ],
)
def test_wrong_fields_are_refused_by_name(fields: dict[str, Any], start: str) -> None:
    with pytest.raises(ValueError, match="; ") as refusal:
        LibSVM(**fields)
    assert str(refusal.value).startswith(start)


def test_the_digest_is_of_what_is_in_the_files(tmp_path: Path) -> None:
    path, other = write(tmp_path), write(tmp_path, name="other")
    one = LibSVM(path)
    inner = hashlib.blake2b(TEXT.encode()).digest()
    assert one.digest == hashlib.blake2b(inner).hexdigest()[:16] == LibSVM(other).digest
    assert LibSVM(Path(path).name, root=str(tmp_path)) == LibSVM("data", root=str(tmp_path), digest=one.digest)
    assert LibSVM(path, digest=one.digest).digest == one.digest
    both = LibSVM(path, test_path=other).digest
    assert both == hashlib.blake2b(inner + inner).hexdigest()[:16]
    assert both != LibSVM(write(tmp_path, TEXT + TEXT, "joined")).digest

    write(tmp_path, TEXT + "1 1:1\n")
    assert LibSVM(path).digest != one.digest
    changed = rf"digest={one.digest}: the files have changed since; leave it out to take them as they are now$"
    with pytest.raises(ValueError, match=f"^{changed}"):
        LibSVM(path, digest=one.digest)
    with pytest.raises(ValueError, match=rf"^dataset\.{changed}"):
        one.load(2, 0, torch.float32)


def test_a_missing_file_is_missed_when_it_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path)
    missing, folder = "is missing", r"cannot be read \(a folder, not a file\)"
    for fields, wrong in (
        ({"path": "none"}, missing),
        ({"path": path, "test_path": "none"}, missing),
        ({"path": path, "test_path": str(tmp_path)}, folder),
    ):
        key, last = list(fields.items())[-1]
        dataset = LibSVM(**fields)
        assert dataset.digest == ""
        with pytest.raises(FileNotFoundError, match=rf"^dataset\.{key}={last}: .* {wrong}; put a file in LIBSVM"):
            dataset.load(2, 0, torch.float32)


def test_the_content_names_the_run_and_the_place_does_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path, other = write(tmp_path), write(tmp_path / "elsewhere", name="other")
    name = plan("dataset=libsvm", f"dataset.path={path}").name
    assert name.split("-")[2] == "libsvm"
    assert plan("dataset=libsvm", f"dataset.path={other}").name == name
    assert plan("dataset=libsvm", "dataset.path=data", f"dataset.root={tmp_path}").name == name
    assert plan("dataset=libsvm", f"dataset.path={path}", f"dataset.test_path={other}").name != name
    write(tmp_path, TEXT + "1 1:1\n")
    assert plan("dataset=libsvm", f"dataset.path={path}").name != name
    with pytest.raises(UserError, match=r"^dataset.digest=abc: the files have changed since; "):
        plan("dataset=libsvm", f"dataset.path={path}", "dataset.digest=abc")
    with pytest.raises(UserError, match=r"^dataset.path=: empty; give a file .*bz2$"):
        plan("dataset=libsvm")


def test_an_experiment_on_a_file(run: Callable[..., Run], tmp_path: Path) -> None:
    path = write(tmp_path, many(("1", "2")))
    words = ["dataset=libsvm", f"dataset.path={path}", "rounds=4", "eval_every=2", "workers=2"]
    few, with_zeros = run(*words), run(*words, "model.hidden=[8]", "model.activation=tanh")
    for result in (few, with_zeros):
        assert result.status == "completed"
        assert 0 <= result.metrics["test_accuracy"].iloc[-1] <= 1
    write(tmp_path, "1 1:1\n2 x\n")
    with pytest.raises(UserError, match=r"^dataset.path=.*: line 2: 'x' is not index:value; "):
        run(*words)


# a9a ------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not all((SHARED / name).is_file() for name in ("a9a.gz", "a9a.t.gz")),
    reason="a9a.gz and a9a.t.gz are not in shared/data beside the repository",
)
def test_a9a_is_the_published_one(tmp_path: Path) -> None:
    data = A9A(str(SHARED)).load(2, 0, torch.float32)
    assert isinstance(data.train_x, SparseRows)
    assert isinstance(data.test_x, SparseRows)
    assert (data.train_x.shape, data.test_x.shape) == ((32_561, 123), (16_281, 123))
    assert data.test_y is not None
    assert (int(data.train_y.sum()), int(data.test_y.sum()), data.classes) == (7841, 3846, 2)
    assert data.train_x[torch.tensor([0])].matrix.indices.tolist() == [
        i - 1 for i in (3, 11, 14, 19, 39, 42, 55, 64, 67, 73, 75, 76, 80, 83)
    ]
    own = load(str(SHARED / "a9a.gz"), test_path=str(SHARED / "a9a.t.gz"), dtype=torch.float32)
    assert own.test_x.shape == data.test_x.shape, "the test file lacks the last feature"
    assert (own.train_x.matrix != data.train_x.matrix).nnz == 0
    assert torch.equal(own.train_y, data.train_y)

    text = gzip.decompress((SHARED / "a9a.t.gz").read_bytes())
    (tmp_path / "a9a.t").write_bytes(text)
    (tmp_path / "a9a.bz2").write_bytes(bz2.compress(gzip.decompress((SHARED / "a9a.gz").read_bytes())))
    packed_anew = A9A(str(tmp_path)).load(2, 0, torch.float32)
    assert torch.equal(packed_anew.train_y, data.train_y)
    (tmp_path / "a9a.t").write_bytes(text[:-9] + b"1" + text[-8:])
    with pytest.raises(ValueError, match=r"^dataset.root=.*a9a.t is not the published a9a.t \(.*\); .*dataset=libsvm"):
        A9A(str(tmp_path)).load(2, 0, torch.float32)


def test_a9a_that_is_not_there_or_not_the_published_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as refusal:
        A9A(str(tmp_path)).load(2, 0, torch.float32)
    assert str(refusal.value) == (
        f"dataset=a9a: a9a is not in {tmp_path}; put a9a and a9a.t there, each plain, .gz, .bz2 or .xz, "
        "from https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html"
    )
    write(tmp_path, name="a9a", suffix=".gz")
    write(tmp_path, name="a9a.t")
    with pytest.raises(ValueError, match=r"^dataset.root=.*a9a.gz is not the published a9a \(.*\); ") as other:
        A9A(str(tmp_path)).load(2, 0, torch.float32)
    assert "\n" not in str(other.value)
    with pytest.raises(ValueError, match=r"^root=: empty; "):
        A9A("")


def test_presets_of_a_dataset_give_way_to_the_model_that_is_chosen() -> None:
    model = plan("dataset=a9a").resolved["model"]
    assert (model["hidden"], model["activation"]) == ([64], "tanh")
    assert plan("dataset=a9a", "model=resnet20").resolved["model"]["_target_"].endswith("ResNetCifar")
    model = plan("dataset=a9a", "model.hidden=[8,4]", "model.activation=relu").resolved["model"]
    assert (model["hidden"], model["activation"]) == ([8, 4], "relu")
    model = plan("dataset=breast_cancer").resolved["model"]
    assert (model["hidden"], model["activation"]) == ([128], "relu")


# breast cancer --------------------------------------------------------------------------------------------------------


def test_breast_cancer_is_standardised_by_its_training_set() -> None:
    from sklearn.datasets import load_breast_cancer

    data = BreastCancer().load(2, 0, torch.float64)
    assert data.test_x is not None
    assert data.test_y is not None
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((455, 30), (114, 30), 2)
    assert (torch.bincount(data.train_y).tolist(), torch.bincount(data.test_y).tolist()) == ([170, 285], [42, 72])
    assert torch.allclose(data.train_x.mean(0), torch.zeros(30, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(data.train_x.std(0, correction=0), torch.ones(30, dtype=torch.float64), atol=1e-12)
    raw = load_breast_cancer().data
    ours = torch.cat([data.train_x, data.test_x]).numpy()
    order = [np.lexsort(np.round(rows.T[::-1], 9)) for rows in (raw, ours)]
    slopes = (ours[order[1]][-1] - ours[order[1]][0]) / (raw[order[0]][-1] - raw[order[0]][0])
    expected = (raw[order[0]] - raw[order[0]][0]) * slopes + ours[order[1]][0]
    np.testing.assert_allclose(ours[order[1]], expected, atol=1e-9)
    again = BreastCancer().load(5, 3, torch.float64)
    assert torch.equal(again.test_x, data.test_x)
    with pytest.raises(ValueError, match=r"^test=0.0: out of range; "):
        BreastCancer(0.0)


def test_an_experiment_on_breast_cancer(run: Callable[..., Run]) -> None:
    result = run("dataset=breast_cancer", "model.hidden=[8]", "rounds=30", "eval_every=30", "workers=2")
    assert result.metrics["test_accuracy"].iloc[-1] > 0.9
