"""Bundles: what is packed is checked, nothing else comes out of an archive, and a run that is repeated is compared."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import status_of
from registry import plan

import commexp
from commexp.api import run_experiment
from commexp.cli import runs as desk
from commexp.cli.run import main
from commexp.config.foreign import foreign_plan
from commexp.config.messages import UserError
from commexp.report.bundle import DATE, MANIFEST, pack, unpack
from commexp.report.difference import differences, relative
from commexp.run_folder import Run

SMALL = ["dataset=linreg", "dataset.dim=8", "dataset.samples=10", "workers=4", "rounds=4", "eval_every=2"]
Member = tuple[zipfile.ZipInfo, bytes]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    outputs = tmp_path_factory.mktemp("made") / "outputs"
    words = [*SMALL, "algo=topk", "compress.k=2", f"outputs={outputs}", "launch.device=cpu"]
    return run_experiment(words, figures=False).folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in an archive, in the current folder."""
    monkeypatch.chdir(tmp_path)
    pack([made], [], tmp_path / "one.zip")
    return Path("one.zip")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    def called(*words: str) -> tuple[int, str, str]:
        program = desk.main if words[0] == "commexp-runs" else main
        status = status_of(program, list(words), monkeypatch)
        assert isinstance(status, int)
        return status, *capfd.readouterr()

    return called


def members(bundle: Path) -> list[Member]:
    with zipfile.ZipFile(bundle) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def rewritten(bundle: Path, change: Callable[[list[Member]], list[Member]], honest: bool = False) -> Path:
    """The archive with other members. ``honest``: its manifest is that of what it holds."""
    found = change(members(bundle))
    if honest:
        manifest = json.loads(next(content for info, content in found if info.filename == MANIFEST))
        kept = [(info, content) for info, content in found if info.filename != MANIFEST]
        manifest["files"] = {
            info.filename: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for info, content in kept
        }
        found = [*kept, (zipfile.ZipInfo(MANIFEST, DATE), json.dumps(manifest).encode())]
    with zipfile.ZipFile("changed.zip", "w") as archive:
        for info, content in found:
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return Path("changed.zip")


def named(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x", DATE)
    info.filename, info.external_attr = name, mode << 16
    return info


def test_what_is_packed_comes_out_again(bundle: Path, made: Path, call: Call) -> None:
    status, out, err = call("commexp-runs", "unpack", "one.zip")
    assert (status, err) == (0, "")
    copy = Path("outputs/unpacked/one/runs") / made.name
    inside = {path.relative_to(made) for path in made.rglob("*") if path.is_file() and path.name != ".lock"}
    assert {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()} == inside
    assert all((copy / name).read_bytes() == (made / name).read_bytes() for name in inside)
    assert f"1 run, {len(inside)} files, every SHA-256 as it was packed" in out
    manifest = json.loads(zipfile.ZipFile(bundle).read(MANIFEST))
    told = manifest["runs"][made.name]
    meta = Run(made).meta
    assert {key: told[key] for key in ("torch", "python", "packages")} == {
        k: meta[k] for k in ("torch", "python", "packages")
    }
    if meta["git_commit"] is not None:
        assert (told["git_commit"], told["dirty"]) == (meta["git_commit"], meta["git_commit"].endswith("-dirty"))
    assert call("commexp-runs", "unpack", "one.zip")[0] == 2  # nothing is written over
    pack([made], [], Path("two.zip"))
    assert Path("two.zip").read_bytes() == bundle.read_bytes()


def test_a_sweep_is_packed_with_its_runs_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = commexp.sweep("algo.lr=0.1,0.2", *SMALL)
    (sweep,) = Path("outputs/sweeps").iterdir()
    assert call("commexp-runs", "pack", sweep.name, "-o", "all.zip")[0] == 0
    assert call("commexp-runs", "pack", sweep.name, "-o", "all.zip")[0] == 2
    assert call("commexp-runs", "unpack", "all.zip", "--out", "there")[0] == 0
    shutil.rmtree("outputs")
    assert (Path("there/sweeps") / sweep.name / "sweep.csv").is_file()
    found = commexp.runs(sweep.name, root="there")
    assert {run.name for run in found} == {run.name for run in runs}
    assert "2 completed" in call("commexp-runs", "list", "--root", "there")[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: [*m, (named("../evil.csv"), b"")], "'../evil.csv' is no file that a run or a sweep has"),
        (lambda m: [*m, (named("/tmp/evil.csv"), b"")], "'/tmp/evil.csv' is no file"),
        (lambda m: [*m, (named("runs/a/../../../evil.csv"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/../evil.csv"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/a\\b/evil.csv"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/a/evil.py"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/a/checkpoints/state.json"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/.hidden/config.yaml"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/a/"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/a/config.yaml\n"), b"")], "is no file that a run"),
        (lambda m: [*m, (named("runs/a/x.csv", stat.S_IFLNK | 0o777), b"/etc/passwd")], "is a link or the like"),
        (lambda m: [*m, m[0]], "occurs twice"),
        (
            lambda m: [*m, (named("runs/a/x.csv"), b"1")],
            "'runs/a/x.csv' is in the archive or in its manifest.json, but",
        ),
        (lambda m: m[1:], "but not in both"),
        (
            lambda m: [(m[0][0], m[0][1] + b" "), *m[1:]],
            "is not what it was when it was packed: its SHA-256 is another",
        ),
        (lambda m: [(named("runs/a/x.csv"), bytes(2**25)), *m], "unpacks to more bytes than so small a file can hold"),
        (lambda m: [(named("runs/a/config.yaml"), bytes(2**24 + 1)), *m], "16777217 bytes are more than"),
        (lambda m: m[:-1], "has no manifest.json"),
        (lambda m: [*m[:-1], (m[-1][0], b"[]")], "manifest.json lists no files"),
        (lambda m: [*m[:-1], (m[-1][0], b"{")], "Expecting"),
        (lambda m: [*m[:-1], (m[-1][0], m[-1][1].replace(b'"format": 1', b'"format": 2'))], "format 2; this commexp"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_else_comes_out(bundle: Path, change: Any, message: str, tmp_path: Path, call: Call) -> None:
    changed = rewritten(bundle, change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(message)):
        unpack(changed, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    status, out, err = call("commexp-runs", "unpack", "changed.zip", "--out", "out")
    assert (status, out) == (2, "")
    assert err.startswith("commexp: error: FILE=changed.zip: ")
    assert err.endswith("; give a file that commexp-runs pack has written\n")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_what_is_no_archive_is_one_line(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.zip").write_bytes(content)
    for words in (["commexp-runs", "unpack", "bad.zip"], ["commexp", "rerun", "bad.zip"]):
        status, out, err = call(*words)
        assert (status, out) == (2, "")
        assert err.startswith("commexp: error: FILE=bad.zip: a damaged archive (")
    assert call("commexp", "rerun", "none.zip")[0] == 2


def test_a_cut_or_flipped_archive_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole = bundle.read_bytes()
    for damaged in (whole[:-30], whole[: len(whole) // 2], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        Path("bad.zip").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged archive|SHA-256"):
            unpack(Path("bad.zip"), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_repeated_run_is_equal_bit_for_bit(bundle: Path, made: Path, call: Call) -> None:
    status, out, err = call("commexp", "rerun", "one.zip")
    assert status == 0, err
    assert f"{made.name}: equal, bit for bit" in out
    assert re.search(r"^\| loss +\| \S+ +\| \S+ +\| equal +\| - ", out, flags=re.MULTILINE)
    again = Run(Path("outputs/reruns/runs") / made.name)
    assert again.metrics.drop(columns="wall_seconds").equals(Run(made).metrics.drop(columns="wall_seconds"))
    assert not Path("outputs/runs").exists()


def with_file(bundle: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    def changed(found: list[Member]) -> list[Member]:
        return [(info, change(content) if info.filename.endswith(f"/{name}") else content) for info, content in found]

    return rewritten(bundle, changed, honest=True)


def test_another_number_is_told_with_its_first_round(bundle: Path, call: Call) -> None:
    def change(text: bytes) -> bytes:
        header, first, second, third = text.decode().splitlines()
        column = header.split(",").index("train_loss")
        cells = [line.split(",") for line in (first, second, third)]
        cells[1][column] = repr(float(cells[1][column]) * (1 + 1e-7))
        cells[2][column] = repr(float(cells[2][column]) * 1.01)
        return "\n".join([header, *map(",".join, cells)]).encode() + b"\n"

    with_file(bundle, "metrics.csv", change)
    status, out, _ = call("commexp", "rerun", "changed.zip")
    assert status == 1
    assert re.search(r"^\| loss +\|.*\| different +\| 9\.9e-03 +\| 4 ", out, flags=re.MULTILINE)
    assert "different by more than 1e-05" in out
    status, out, _ = call("commexp", "rerun", "changed.zip", "--tolerance", "0.1")
    assert status == 0
    assert re.search(r"^\| loss +\|.*\| within the last digits +\| 9\.9e-03 +\| 2 ", out, flags=re.MULTILINE)


def test_other_versions_are_told(bundle: Path, call: Call) -> None:
    def older(text: bytes) -> bytes:
        meta = json.loads(text)
        meta["packages"]["numpy"] = "1.0"
        return json.dumps({**meta, "torch": "2.0.\x1b[2J"}).encode()

    with_file(bundle, "meta.json", older)
    status, out, _ = call("commexp", "rerun", "changed.zip")
    assert status == 0
    assert re.search(r"^torch: 2\.0\.\\x1b\[2J packed, .* here$", out, flags=re.MULTILINE)
    assert re.search(r"^numpy: 1\.0 packed, .* here$", out, flags=re.MULTILINE)


EVIL: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a class": (
        lambda c: c["algo"].update(_target_="subprocess.Popen"), "algo._target_=subprocess.Popen: is no Algorithm"
    ),
    "a class within": (
        lambda c: c["compress"].update(first={"_target_": "os.system"}), "compress.first._target_=os.system: "
    ),
    "a loss": (lambda c: c.update(loss="os.system"), "loss=os.system: code that the run's author has"),
    "a metric": (lambda c: c.update(metrics={"f": "os.system"}), "metrics={f:os.system}: code that"),
    "a factory": (
        lambda c: c.update(model={"_target_": "commexp.problems.models.OwnModule", "factory": "os.getcwd"}),
        "model=commexp.problems.models.OwnModule: what the run's author has handed over",
    ),
    "an interpolation": (lambda c: c.update(name="${oc.env:HOME}"), "name=${oc.env:HOME}: is an interpolation"),
    "one deep inside": (
        lambda c: c["algo"]["schedule"].update(kind="${oc.env:HOME}"), "algo.schedule.kind=${oc.env:HOME}"
    ),
    "a file": (
        lambda c: c["network"].update(trace="/etc/passwd"), "network.trace=/etc/passwd: a file of the run's author"
    ),
    "a file deeper": (
        lambda c: c["network"]["compute"].update(trace="/etc/passwd"), "network.compute.trace=/etc/passwd: a file of"
    ),
    "a key": (lambda c: c.update(sys="x"), "sys=x: no such key"),
    "a type": (lambda c: c.update(workers=[]), "workers=[]: is not a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("what", EVIL)
def test_a_strangers_config_chooses_neither_code_nor_files(bundle: Path, what: str, call: Call) -> None:
    change, message = EVIL[what]

    def changed(text: bytes) -> bytes:
        config = yaml.safe_load(text)
        change(config)
        return yaml.safe_dump(config).encode()

    with_file(bundle, "config.yaml", changed)
    status, out, err = call("commexp", "rerun", "changed.zip")
    assert (status, out) == (2, "")
    assert re.match(r"commexp: error: RUN=\S+: cannot be repeated: " + re.escape(message), err), err
    assert len(err.splitlines()) == 1
    assert not Path("outputs").exists()


def test_what_a_config_may_not_decide_is_our_own(bundle: Path, made: Path) -> None:
    config = Run(made).config
    config |= {"outputs": "/etc", "track": ["wandb"], "launch": {"kind": "torchrun", "nproc": 64}, "rerun": False}
    made_plan = foreign_plan(config, (), {"outputs": "here", "rerun": True})
    assert made_plan.name == made.name
    assert (made_plan.config.outputs, made_plan.config.track, made_plan.config.rerun) == ("here", [], True)
    assert made_plan.config.launch.kind == "single"
    for word in ("algo.lr=5", "outputs=there", "dataset.root"):
        with pytest.raises(UserError, match=rf"^{word}: does not say where a file of this run lies"):
            foreign_plan(config, [word], {})


def test_places_of_files_are_the_defaults_or_ones_own(tmp_path: Path) -> None:
    resolved = plan("dataset=mnist", "model=mlp", "dataset.root=/home/author/mnist").resolved
    assert resolved["dataset"]["root"] == "/home/author/mnist"
    again = foreign_plan(resolved, (), {})
    assert again.resolved["dataset"]["root"] == "data/mnist"
    assert foreign_plan(resolved, ["dataset.root=mine"], {}).resolved["dataset"]["root"] == "mine"
    assert again.name == plan("dataset=mnist", "model=mlp").name


@pytest.mark.parametrize(
    "words",
    [
        ("algo=dppf", "algo.tau=2", "compress=none"),
        ("algo=dpsgd", "topology=torus"),
        ("algo=ef21", "dataset=linreg", "algo.lr=theory"),
        ("algo=topk", "compress.transform.kind=dct", "network.compute=h100", "straggler=bernoulli"),
        ("algo=gradient_coding", "algo.first=5"),
        ("algo=diloco", "algo.tau=4", "participation=0.5", "stop.bytes=1e6", "partition=dirichlet"),
    ],
)
def test_every_config_repeats_under_its_own_name(words: tuple[str, ...]) -> None:
    made_plan = plan(*words)
    assert foreign_plan(made_plan.resolved, (), {}).name == made_plan.name


def test_relative_differences() -> None:
    nan, inf = float("nan"), float("inf")
    for one, other, gap in ((1, 1, 0), (nan, nan, 0), ("nan", nan, 0), (inf, inf, 0), (1.0, 2.0, 0.5), (-1, 1, 2)):
        assert relative(one, other) == gap
    for one, other in ((1, nan), (1, inf), (inf, -inf), ("a", 1)):
        assert relative(one, other) == inf
    assert relative("a", "a") == 0


def test_tables_of_other_rounds_differ(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "short")
    short = Run(tmp_path / "short")
    short.write_rows("metrics", short.rows("metrics")[:-1])
    assert all(each.verdict == "different" and each.first_round == 4 for each in differences(Run(made), short))
