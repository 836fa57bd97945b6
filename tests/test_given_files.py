"""Every path that a user gives: what cannot be read, or stands for gigabytes, is refused in one line and at once."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image
from registry import plan

from commexp.allocations import AllocationFile
from commexp.experiment.execute import folder_of
from commexp.network import Network
from commexp.network.compute import Compute, read_trace
from commexp.problems.datasets import A9A, MNIST, LibSVM, MovieLens, Netflix
from commexp.problems.datasets.files import check
from commexp.problems.datasets.imagenet import ImageNet
from commexp.problems.models.pretrained import Pretrained
from commexp.topologies import GraphFile, MatrixFile

Reader = Callable[[str], object]
LIBSVM = "1 1:0.5 3:2\n-1 2:1\n1 1:4\n-1 3:1\n" * 4
RATINGS = "userId,movieId,rating\n" + "".join(f"{u},{i},{1 + (u + i) % 5}\n" for u in range(1, 5) for i in range(1, 5))
NETFLIX = "1:\n5,3,2004-02-29\n6,2,2000-01-02\n2:\n5,4,2000-01-01\n6,1,2000-01-03\n7,1,2000-01-03\n"


def matrix_text() -> str:
    ring = np.array([[2, 1, 0, 1], [1, 2, 1, 0], [0, 1, 2, 1], [1, 0, 1, 2]]) / 4
    return "\n".join(" ".join(map(str, row)) for row in ring.tolist()) + "\n"


#: by the key that an error begins with: who reads such a file, and a sound one
READERS: dict[str, tuple[Reader, str]] = {
    "dataset.path": (lambda path: LibSVM(path).load(2, 0, torch.float32), LIBSVM),
    "dataset.path of ratings": (lambda path: MovieLens(path).load(2, 0, torch.float32), RATINGS),
    "dataset.path of the prize": (lambda path: Netflix(path).load(2, 0, torch.float32), NETFLIX),
    "path of a graph": (lambda path: GraphFile(path).graphs(4, 0), "0 1\n1 2\n2 3\n3 0\n"),
    "path of a matrix": (lambda path: MatrixFile(path).mixings(4, 0), matrix_text()),
    "path of an allocation": (lambda path: AllocationFile(path=path).assign(2, 0), "1 0\n1 1\n"),
    "compute.trace": (lambda path: Compute(kind="trace", trace=path), "0.5\n1e-3\n2\n"),
    "trace": (lambda path: Network(trace=path), "0 100 20\n5.5, 1e2, 0\n"),
}


def zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inside.txt", content)
    return archive.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def folder(path: Path) -> None:
    path.mkdir()


@cache
def packed(line: bytes, times: int) -> bytes:
    return gzip.compress(line * times)


def newlines(path: Path) -> None:
    """400 MB of them, a part of the archive after the other."""
    path.write_bytes(packed(b"\n", 2**23) * 50)


def comments(path: Path) -> None:
    path.write_bytes(packed(b"#" * 1023 + b"\n", 2**13) * 50)


def zeros(path: Path) -> None:
    """One line of 320 MB; a hole, so that nothing is written."""
    with open(path, "wb") as file:
        file.truncate(320 * 10**6)


def packed_zeros(path: Path) -> None:
    """One line of 640 MB."""
    path.write_bytes(packed(b"0", 2**23) * 80)


def cut(path: Path) -> None:
    path.write_bytes(gzip.compress(os.urandom(4000))[:-1000])


def many_files(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in "ab":
            archive.writestr(name, "1 1:1\n")


KINDS: dict[Callable[[Path], None], str] = {
    fifo: "not a regular file",
    device: "not a regular file",
    loop: "symbolic links",
    folder: "a folder, not a file|holds no such file",
    newlines: "bytes of blank lines|unpacks to more",
    comments: "bytes of blank lines and comments|no line|unpacks to more",
    zeros: "no line of such a file|bytes are more than",
    packed_zeros: "no line of such a file|unpacks to more",
    cut: "ended before|no text|cannot be unpacked",
    many_files: "a zip of 2 files",
}


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("key", READERS)
def test_what_is_no_such_file_is_refused_in_one_line(
    key: str, make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may have a quarter of the usual bytes, which are the sooner read."""
    monkeypatch.setattr("commexp.files.LISTING", 2**25)
    make(tmp_path / "given")
    with pytest.raises((ValueError, FileNotFoundError), match=rf"^{key.split()[0]}=.*({KINDS[make]}).*; ") as refusal:
        READERS[key][0](str(tmp_path / "given"))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("key", READERS)
def test_a_file_is_unpacked_by_its_first_bytes(key: str, packer: str, tmp_path: Path) -> None:
    """Whatever its name says; a byte order mark, comments and empty lines are passed over."""
    read, text = READERS[key]
    (tmp_path / "given.gz").write_bytes(PACKERS[packer](f"\n# first\n\n{text}\n # last".encode("utf-8-sig")))
    read(str(tmp_path / "given.gz"))


COMMANDS = {
    "dataset.path": "dataset=libsvm model=logistic_regression",
    "topology.path": "dataset=linreg algo=dpsgd topology=matrix",
    "allocation.path": "dataset=linreg algo=gradient_coding allocation=file",
    "network.compute.trace": "dataset=linreg network.compute.kind=trace",
    "network.trace": "dataset=linreg",
}


@pytest.mark.parametrize("key", COMMANDS)
def test_the_command_ends_at_once(key: str, entry: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "given")
    ended = entry(*COMMANDS[key].split(), f"{key}={tmp_path}/given")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"commexp: error: {key}={tmp_path}/given: ")
    assert ended.stderr.count("\n") == 1
    assert "not a regular file" in ended.stderr
    assert not (tmp_path / "outputs").exists()


# ---------------------------------------------------------------------------------------------------- what headers say


HEADERS = {
    "coordinate real general\n1000000000 1000000000 1\n1 1 1\n": "workers=4: the graph in .* has 1000000000",
    "array real general\n1000000000 1000000000\n1\n": "workers=4: the graph in .* has 1000000000",
    "coordinate real general\n1000000000 4 1\n1 1 1\n": r"1000000000 rows and 4 columns: not square",
    "coordinate real general\n-4 -4 1\n1 1 1\n": "its sizes are '-4 -4 1'",
    "coordinate real general\n4 4 1000000000000\n1 1 1\n": "it is shorter than its sizes, 4 4 1000000000000",
    "coordinate real general\n4 4 100000000\n1 1 1\n": "it is shorter than its sizes",
    "coordinate real general\n4 4\n1 1 1\n": "its sizes are '4 4'",
    "coordinate real general\n": "its sizes are ''",
    "coordinate complex general\n4 4 1\n1 1 1 1\n": "line 1 is",
    "tensor real general\n4 4 1\n1 1 1\n": "line 1 is",
}


@pytest.mark.parametrize("rest", HEADERS)
def test_the_sizes_of_a_matrix_market_file_are_checked_first(rest: str, tmp_path: Path) -> None:
    (tmp_path / "W.mtx").write_text("%%MatrixMarket matrix " + rest)
    with pytest.raises(ValueError, match=HEADERS[rest]):
        MatrixFile(str(tmp_path / "W.mtx")).mixings(4, 0)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4"])
def test_a_matrix_that_numpy_saved(dtype: str, order: str, tmp_path: Path) -> None:
    expected = np.loadtxt(io.StringIO(matrix_text()))
    np.save(tmp_path / "W.npy", np.asarray(expected, dtype=dtype, order=order))
    (mixing,) = MatrixFile(str(tmp_path / "W.npy")).mixings(4, 0)
    assert np.array_equal(mixing.matrix.toarray(), expected)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([[object()]]), "holds object of shape"),
        (np.eye(2, dtype=complex), "holds complex128 of shape"),
        (np.eye(3), "workers=2: the graph in .* has 3"),
        (np.ones((2, 3)) / 2, "2 rows and 3 columns: not square"),
        (np.ones(2), r"of shape \(2,\)"),
    ],
)
def test_arrays_that_are_refused(array: np.ndarray, says: str, tmp_path: Path) -> None:
    np.save(tmp_path / "W.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=f"^(path=.*)?{says}"):
        MatrixFile(str(tmp_path / "W.npy")).mixings(2, 0)


def test_a_header_of_numpys_that_lies(tmp_path: Path) -> None:
    np.save(tmp_path / "W.npy", np.eye(2))
    content = (tmp_path / "W.npy").read_bytes()
    for shape, says in ((b"(9999999, 9999999)", "has 9999999"), (b"(2,          2  )", "")):
        damaged = content.replace(b"(2, 2), }" + b" " * (len(shape) - 6), shape + b", }")
        assert len(damaged) == len(content)
        (tmp_path / "W.npy").write_bytes(damaged if says else damaged[:-8])
        with pytest.raises(ValueError, match=says or "has 24 bytes after its header"):
            MatrixFile(str(tmp_path / "W.npy")).mixings(2, 0)
    (tmp_path / "W.npy").write_bytes(content[:12])
    with pytest.raises(ValueError, match=r"cannot be read as \.npy"):
        MatrixFile(str(tmp_path / "W.npy")).mixings(2, 0)


def test_graphml_that_declares_entities_is_refused(tmp_path: Path) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE g [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><graphml>&b;</graphml>'
    (tmp_path / "g.graphml").write_text(bomb)
    with pytest.raises(ValueError, match="declares entities"):
        GraphFile(str(tmp_path / "g.graphml")).graphs(2, 0)


# ---------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("dataset.path", LIBSVM + "1 1:1_0\n"),
        ("dataset.path", LIBSVM + "1 1_0:1\n"),
        ("dataset.path", LIBSVM + "1_0 1:1\n-1_0 1:1\n" * 3),
        ("dataset.path", LIBSVM + "1 \u0661:1\n"),
        ("dataset.path", LIBSVM + "1 1:infinity\n"),
        ("dataset.path", LIBSVM + "1 1:0x1\n"),
        ("path of a graph", "0 1\n\u0661 0\n"),
        ("path of a graph", "0 " + "1" * 5000 + "\n"),
        ("path of a matrix", "0.5 0_5\n.5 .5\n"),
        ("path of a matrix", "\u0661 0\n0 1\n"),
        ("path of an allocation", "\u0661 0\n1 1\n"),
        ("compute.trace", "1\n1_0\n"),
        ("compute.trace", "\u0661\n"),
        ("compute.trace", "infinity\n"),
        ("compute.trace", "nan\n"),
        ("compute.trace", "-1\n"),
        ("compute.trace", "1 2\n"),
    ],
)
def test_only_decimal_numbers_in_ascii_are_numbers(key: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "given").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{key.split()[0]}=.*: line \d+"):
        READERS[key][0](str(tmp_path / "given"))


def test_a_trace_may_have_empty_lines_and_comments(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("# seconds\n1\n\n2.5  # slow\n")
    assert read_trace(str(tmp_path / "trace")).tolist() == [1, 2.5]


# ----------------------------------------------------------------------------------------------------------- LIBSVM


def test_indices_count_from_zero_for_who_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("1 0:5 2:7\n-1 1:3\n" * 3)
    with pytest.raises(ValueError, match=r"line 1: index 0 is out of range; .*dataset.zero_based=true"):
        LibSVM(str(tmp_path / "data")).load(2, 0, torch.float64)
    data = LibSVM(str(tmp_path / "data"), zero_based=True, test_path=str(tmp_path / "data")).load(2, 0, torch.float64)
    assert data.train_x.dense(torch.float64)[:2].tolist() == [[5, 0, 7], [0, 3, 0]]
    with pytest.raises(
        ValueError, match=r"line 1: index 2 is out of range; indices go up to dataset.features=2 less 1"
    ):
        LibSVM(str(tmp_path / "data"), zero_based=True, features=2).load(2, 0, torch.float64)


def test_samples_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(gzip.compress((b"1 1:1\n-1 2:1" + b" " * 2**15 + b"\n") * 2**9) * 300)
    with pytest.raises(ValueError, match=r"unpacks to more than \d+ bytes, which are too many for so small a file"):
        LibSVM(str(tmp_path / "data")).load(2, 0, torch.float64)


def test_a_few_bytes_do_not_stand_for_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("1 1:1\n-1 1999999999:1\n" * 3)
    with pytest.raises(ValueError, match=r"line 2: index 1999999999 is beyond .*; give dataset.features"):
        LibSVM(str(tmp_path / "data")).load(2, 0, torch.float64)


# ---------------------------------------------------------------------------------------------------------- ratings


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ('"userId","movieId","rating","timestamp"', "{u},{i},{r},{t}"),
        ("user_id,item_id,rating,timestamp", "{u},{i},{r},{t}"),
        ("User_ID;Movie_ID;Rating", "{u};{i};{r}"),
        ("timestamp\trating\titem\tuser", "{t}\t{r}\t{i}\t{u}"),
        ("userId,movieId,rating", "{u},{i},{r}"),
        ("", "{u}\t{i}\t{r}"),
        ("", "{u}::{i}::{r}"),
    ],
)
def test_headers_say_which_column_is_which(header: str, row: str, tmp_path: Path) -> None:
    rows = [(u, i, 1 + (u * i) % 5, 9 - u) for u in (3, 70) for i in (1, 2, 8)]
    text = "\n".join([*([header] if header else []), *(row.format(u=u, i=i, r=r, t=t) for u, i, r, t in rows)])
    (tmp_path / "ratings").write_text(text)
    data = MovieLens(str(tmp_path / "ratings")).load(2, 0, torch.float64)
    sides = ((data.train_x, data.train_y), (data.test_x, data.test_y))
    found = [r for x, y in sides for r in zip(x.users.tolist(), x.items.tolist(), y.tolist(), strict=True)]
    users, items = {3: 0, 70: 1}, {1: 0, 2: 1, 8: 2}
    assert sorted(found) == sorted((users[u], items[i], float(r)) for u, i, r, _ in rows)
    if "{t}" not in row:
        with pytest.raises(ValueError, match=r"^dataset.split=time: the ratings have no times; give random"):
            MovieLens(str(tmp_path / "ratings"), split="time").load(2, 0, torch.float64)


def test_netflix_in_both_forms_at_once(tmp_path: Path) -> None:
    for name in ("combined_data_1.txt", "mv_0000001.txt"):
        (tmp_path / name).write_text(NETFLIX)
    with pytest.raises(ValueError, match=r"^path=.*: holds combined_data_\*.txt and mv_\*.txt, .*; leave one of them"):
        Netflix(str(tmp_path))


# ------------------------------------------------------------------------------------- folders of files, and of photos


def test_published_files_that_are_none(tmp_path: Path) -> None:
    for name in ("a9a", "train-images-idx3-ubyte.gz", "resnet18-f37072fd.pth"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="a9a is not in"):
        A9A(str(tmp_path)).load(2, 0, torch.float32)
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz is not in"):
        MNIST(root=str(tmp_path)).load(2, 0, torch.float32)
    with pytest.raises(FileNotFoundError, match="is not in"):
        Pretrained(weights_dir=str(tmp_path)).backbone()
    zeros(tmp_path / "large")
    os.truncate(tmp_path / "large", 2**40)
    with pytest.raises(ValueError, match="bytes are more than"):
        check("data", tmp_path / "large", "0" * 32)
    newlines(tmp_path / "a9a.bz2")
    (tmp_path / "a9a.t").write_text(LIBSVM)
    with pytest.raises(ValueError, match="is not the published a9a"):
        A9A(str(tmp_path)).load(2, 0, torch.float32)


def photos(folder: Path) -> ImageNet:
    for part in ("train", "val"):
        for name in ("cats", "dogs"):
            (folder / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / part / name / "a.png")
    return ImageNet(root=str(folder), image_size=8, loaders=0)


def test_links_that_lead_back_are_refused(tmp_path: Path) -> None:
    dataset = photos(tmp_path)
    (tmp_path / "train" / "cats" / "more").symlink_to(tmp_path / "train")
    with pytest.raises(ValueError, match=r"^dataset.root=.*more leads back to a folder that it lies in; remove"):
        dataset.load(2, 0, torch.float32)


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is as large and holds one pixel."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 4)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["fifo", "bomb", "text"])
def test_photos_that_are_none_are_named(kind: str, tmp_path: Path) -> None:
    data = photos(tmp_path).load(2, 0, torch.float32)
    photo = tmp_path / "train" / "cats" / "a.png"
    photo.unlink()
    if kind == "fifo":
        os.mkfifo(photo)
    else:
        photo.write_bytes(png_of(60_000, 60_000) if kind == "bomb" else b"no image")
    with pytest.raises(ValueError, match=r"^dataset: .*a.png cannot be read as an image \(.*\); get it anew"):
        data.train_x.read(0, None)


# ----------------------------------------------------------------------------------------------------- the home folder


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for key, (read, text) in READERS.items():
        (tmp_path / "given").write_text(text)
        read("~/given")
        assert key
    photos(tmp_path / "photos")
    ImageNet(root="~/photos", image_size=8).load(2, 0, torch.float32)
    (tmp_path / "data").write_text(LIBSVM)
    LibSVM("data", root="~").load(2, 0, torch.float32)


def test_outputs_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_of(plan("dataset=linreg", "outputs='~/results'")).folder.parent == tmp_path / "results" / "runs"


def test_graphs_keep_their_kind_when_they_are_packed(tmp_path: Path) -> None:
    graph = nx.cycle_graph(4)
    nx.write_graphml(graph, tmp_path / "g.graphml.gz")
    nx.write_adjlist(graph, tmp_path / "g.adjlist.bz2")
    for name in ("g.graphml.gz", "g.adjlist.bz2"):
        (read,) = GraphFile(str(tmp_path / name)).graphs(4, 0)
        assert {frozenset(e) for e in read.edges()} == {frozenset(e) for e in graph.edges()}
