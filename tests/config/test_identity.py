"""What decides a result is in the run's name, and nothing else decides one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from problems.test_image_files import write_photos
from registry import options, plan, target

from commexp.config.components import short
from commexp.config.identity import digest, what_decides
from commexp.config.messages import UserError
from commexp.run_folder import Run

CODEC = """
from dataclasses import dataclass
import torch
from commexp.compressors import Sparse
from own.places import first

@dataclass
class FirstK(Sparse):
    def encode(self, a):
        return self.pack(a, first(self.entries(a.shape[1]), len(a)))
"""
PLACES = """
import torch

def first(k, workers):
    from . import shift
    return (torch.arange(k) + shift.BY).expand(workers, -1)
"""
FILES = {
    "own/__init__.py": "",
    "own/places.py": PLACES,
    "own/shift.py": "BY = 0\n",
    "own/unused.py": "",
    "mine.py": CODEC,
}
TOPK = ("algo=topk", "compress.k=5")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules of the user's own, on Python's path."""
    folder = tmp_path / "code"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    yield folder
    forget()


def forget() -> None:
    """As a new process would."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("own", "mine", "other")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def name(*overrides: str) -> str:
    forget()
    return plan(*overrides).name


@pytest.mark.parametrize("file", ["mine.py", "own/places.py", "own/shift.py", "own/__init__.py"])
def test_source_from_outside_is_in_the_name(own: Path, file: str) -> None:
    """Of the class, of what its module imports, and of what that imports when it is called."""
    words = (*TOPK, "compress._target_=mine.FirstK")
    before = name(*words)
    assert name(*words) == before
    text = (own / file).read_text()
    (own / file).write_text(text + "# edited\n")
    assert name(*words) != before
    (own / file).write_text(text)
    assert name(*words) == before


def test_what_is_not_imported_is_not_in_the_name(own: Path) -> None:
    words = (*TOPK, "compress._target_=mine.FirstK")
    before = name(*words)
    (own / "own" / "unused.py").write_text("x = 1\n")
    assert name(*words) == before
    assert set(plan(*words).sources) == {"mine", "own", "own.places", "own.shift"}


def test_where_the_source_lies_is_not_in_the_name(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*TOPK, "compress._target_=mine.FirstK")
    before = name(*words)
    own.rename(own.with_name("moved"))
    monkeypatch.syspath_prepend(own.with_name("moved"))
    assert name(*words) == before


def test_base_classes_and_components_within_others_count_too(own: Path) -> None:
    (own / "other.py").write_text("from mine import FirstK\n\nclass Second(FirstK):\n    pass\n")
    words = ("compress=topk_qsgd", "compress.entries._target_=other.Second")
    before = name(*words)
    (own / "mine.py").write_text(CODEC.replace("first(self", "(lambda *a: first(*a) + 1)(self"))
    assert name(*words) != before


def test_a_component_within_another_is_in_the_name(own: Path) -> None:
    """Also where both have the same fields."""
    ours, theirs = (plan("compress=topk_qsgd", f"compress.entries._target_={t}")
                    for t in ("commexp.compressors.TopK", "mine.FirstK"))  # fmt: skip
    assert ours.name != theirs.name
    assert theirs.resolved["compress"]["entries"]["_target_"] == "mine.FirstK"
    assert not ours.sources


def test_code_that_has_changed_since_it_was_loaded_is_refused(own: Path) -> None:
    words = (*TOPK, "compress._target_=mine.FirstK")
    before = plan(*words).name
    (own / "mine.py").write_text(CODEC + "# edited\n")
    with pytest.raises(UserError, match=r"^_target_=mine: .*mine.py has changed since .*; start Python anew"):
        plan(*words)
    importlib.reload(sys.modules["mine"])
    assert plan(*words).name != before


def test_code_without_a_file_is_refused(own: Path) -> None:
    made = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("other", None))
    sys.modules["other"] = made
    exec(CODEC.replace("@dataclass\n", ""), made.__dict__)
    with pytest.raises(UserError, match=r"^_target_=other: lies in no file .*; put it into a module"):
        plan(*TOPK, "compress._target_=other.FirstK")


def test_a_run_says_what_it_was_made_from(own: Path, run: Callable[..., Run]) -> None:
    small = ("dataset=linreg", "rounds=2", "eval_every=2")
    assert "sources" not in run(*small).meta
    from commexp.config.identity import RESULTS

    found = run(*small, "compress=topk", "compress.k=5", "compress._target_=mine.FirstK").meta
    assert found["results"] == RESULTS
    assert set(found["sources"]) == {"mine", "own", "own.places", "own.shift"}


def test_our_own_version_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan().name
    monkeypatch.setattr("commexp.config.identity.RESULTS", 1_000_000)
    assert plan().name != before


def test_a_trace_counts_by_its_numbers(tmp_path: Path, run: Callable[..., Run]) -> None:
    """A changed file is another run, the same one at another place is not."""
    here, there = tmp_path / "t.txt", tmp_path / "elsewhere.txt"
    here.write_text("1\n2\n")
    there.write_text("1.0\n2.0\n")
    words = ("dataset=linreg", "workers=2", "rounds=2", "eval_every=2", "network.compute.kind=trace")
    first = run(*words, f"network.compute.trace={here}")
    assert plan(*words, f"network.compute.trace={there}").name == first.name
    here.write_text("100\n100\n")
    second = run(*words, f"network.compute.trace={here}")
    assert second.name != first.name
    assert second.metrics["sim_seconds"].iloc[-1] > 200 > first.metrics["sim_seconds"].iloc[-1]
    assert len(second.config["network"]["compute"]["digest"]) == 16


@pytest.mark.parametrize(("dataset", "inside"), [("imagenet", ""), ("imagenette", "imagenette2-320")])
def test_photos_count_by_their_names_and_sizes(dataset: str, inside: str, tmp_path: Path) -> None:
    for place in ("a", "b", "c"):
        write_photos(tmp_path / place / inside)
    first = sorted((tmp_path / "b" / inside).rglob("train/*/*.*"))[0]
    first.rename(first.with_name(f"renamed{first.suffix}"))
    first = sorted((tmp_path / "c" / inside).rglob("val/*/*.*"))[0]
    first.write_bytes(first.read_bytes() + b"0")
    small = ("model=cnn", f"dataset={dataset}", "dataset.image_size=8")
    names = [plan(*small, f"dataset.root={tmp_path / place}").name for place in ("a", "b", "c")]
    assert len(set(names)) == 3
    (tmp_path / "a").rename(tmp_path / "moved")
    made = plan(*small, f"dataset.root={tmp_path / 'moved'}")
    assert made.name == names[0]
    first = sorted((tmp_path / "moved").rglob("val/*/*.*"))[0]
    first.write_bytes(first.read_bytes() + b"0")
    with pytest.raises(ValueError, match=r"^dataset.digest=\w{16}: the photos in .* have changed since; leave it out"):
        made.dataset.load(1, 0, torch.float32)


def test_a_field_that_was_added_later_leaves_older_names_as_they_were() -> None:
    """Those that hold no such field."""
    made = plan("dataset=digits")
    older = {**made.resolved, "dataset": {k: v for k, v in made.resolved["dataset"].items() if k != "validation"}}
    parts = {
        "dataset": made.dataset, "partition": made.partition, "allocation": made.allocation, "model": made.model,
        "prox": made.prox, "topology": made.topology, "compress": made.compressor, "algo": made.algorithm,
        "network": made.network, "straggler": made.straggler,
    }  # fmt: skip
    decisive, before = (what_decides(resolved, parts, {}) for resolved in (made.resolved, older))
    assert decisive == before
    assert made.name.endswith(digest(before, 4))
    assert plan("dataset=digits", "dataset.validation=null").name == made.name
    assert plan("dataset=digits", "dataset.validation=100").name != made.name


def test_the_program_around_a_run_does_not_decide_its_numbers(run: Callable[..., Run]) -> None:
    """Nor does the run change what that program has set."""
    small = ("model.width=8", "workers=2", "rounds=3", "eval_every=3", "dataset.test=0.8")
    plain = run(*small).metrics.drop(columns="wall_seconds")
    read = [switch[0] for switch in switches()]
    with ExitStack() as stack:
        for get, put, value in (
            (torch.get_default_dtype, torch.set_default_dtype, torch.float64),
            (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
            (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 1),
            (lambda: torch.backends.cudnn.benchmark, lambda v: setattr(torch.backends.cudnn, "benchmark", v), True),
        ):
            stack.callback(put, get())
            put(value)
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        before = [*(get() for get in read), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")]
        hosted = run(*small, "rerun=true").metrics.drop(columns="wall_seconds")
        assert [*(get() for get in read), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")] == before
    assert hosted.equals(plain)


def switches() -> list[tuple[Callable[[], object], object, object]]:
    from commexp.environment import _switches

    return list(_switches())


def test_a_field_that_was_added_later_is_in_the_name_only_where_it_changes_something() -> None:
    """At any depth; a default that is a list, too. The default is what runs did before there was the field."""
    before = plan()
    new = {
        "clip": "1.0",
        "algo.weight_decay_on": "matrices",
        "algo.adam_lr": "0.1",
        "algo.muon_except": "[*head*]",
        "algo.schedule.final": "0.1",
    }
    decisive = what_decides(before.resolved, {"algo": before.algorithm}, {})
    for key, value in new.items():
        group, _, field = key.rpartition(".")
        assert field in select(before.resolved, group)
        assert field not in select(decisive, group)
        assert plan(f"{key}={value}").name != before.name, key
    assert decisive["algo"]["schedule"] == {
        name: before.resolved["algo"]["schedule"][name] for name in ("kind", "warmup", "milestones", "gamma")
    }


def select(node: dict[str, Any], path: str) -> dict[str, Any]:
    for name in filter(None, path.split(".")):
        node = node[name]
    return node


@pytest.mark.parametrize("group", ["algo", "compress", "dataset"])
def test_runs_are_named_after_options(group: str) -> None:
    """A component's file gives a run its name. Another name of the file would be another name of every such run."""
    words = {short(f"{cls.__module__}.{cls.__name__}") for cls in (target(group, name) for name in options(group))}
    assert words <= {*options(group), "composition"}
