"""``commexp.run`` in somebody else's process: it depends on nothing there, and leaves everything as it was."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
import warm
from conftest import environment
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.version import getbase
from omegaconf import OmegaConf

import commexp
from commexp.config.messages import UserError
from commexp.run_folder import Run

TINY = ("dataset=linreg", "model=linear_regression", "dataset.samples=4", "dataset.dim=5", "workers=2", "rounds=2")
NETWORK = ("model.width=8", "batch_size=4", "rounds=2", "eval_every=2", "workers=2", "speed.workers=loop")


def picture() -> dict[str, Any]:
    """What a run could leave changed."""
    named = [logging.getLogger(name) for name in ("commexp", "hydra", "hydra.utils", "torch", "matplotlib", "filelock")]
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "defaults": (torch.get_default_dtype(), torch.get_default_device(), torch.get_float32_matmul_precision()),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),
        "warnings": list(warnings.filters),
        "loggers": [(lo.name, lo.level, list(lo.handlers), lo.propagate, lo.disabled) for lo in [logging.root, *named]],
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)],
        "gc": (gc.isenabled(), gc.get_threshold()),
        "process": (list(sys.argv), dict(os.environ), os.getcwd(), list(sys.path), sys.stdin, sys.stdout, sys.stderr),
        "matplotlib": (dict(mpl.rcParams), mpl.get_backend()),
        "numpy": (np.geterr(), np.get_printoptions()),
        "hydra": (GlobalHydra.instance().hydra, getbase(), {**ConfigStore.instance().repo}),
        "resolvers": [(name, OmegaConf.has_resolver(name)) for name in ("now", "hydra", "choices", "commexp_choices")],
    }


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What merely importing leaves behind is not looked at."""
    commexp.run(*NETWORK, f"outputs={tmp_path_factory.mktemp('first')}")  # with its pictures
    with pytest.MonkeyPatch.context() as patch:
        warm.draw_nothing(patch.setattr)
        commexp.run(*TINY, f"outputs={tmp_path_factory.mktemp('first')}")


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        pytest.param([*NETWORK], "completed", marks=pytest.mark.drawn),
        ([*NETWORK, "comm.deterministic=true", "compress=randk"], "completed"),
        ([*NETWORK, "launch.threads=3", "flatness=valley"], "completed"),
        ([*TINY, "algo.lr=1e30", "rounds=9"], "diverged"),
        ([*TINY, "algo=nope"], "algo=nope"),
        ([*TINY, "compress._target_=nope.Nope"], "compress._target_=nope.Nope"),
        ([*TINY, "launch.device=cuda:77"], "launch.device=cuda:77"),
        ([*TINY, "outputs=/proc/nothing"], "outputs=/proc/nothing"),
    ],
    ids=["plain", "deterministic", "threads", "diverged", "no option", "no class", "no device", "no folder"],
)
def test_everything_is_as_it_was(words: list[str], ends: str, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        before = picture()
        if "=" in ends:
            with pytest.raises(UserError, match=f"^{ends}: "):
                commexp.run(f"outputs={tmp_path}", *words)
        else:
            assert commexp.run(f"outputs={tmp_path}", *words).status == ends
        after = picture()
    finally:
        torch.set_num_threads(1)
    assert {key for key in before if before[key] != after[key]} == set()


UNDRAWN = "from commexp.report import finish; finish._draw = lambda *_: None"  # pictures take longer than these runs
DRAWING = ("pandas", "matplotlib", "plotly", "torchvision", "PIL")  # packages that no process needs to train
FRESH = f"""
import ctypes, os, sys, torch
sys.modules.update(dict.fromkeys({DRAWING}))  # so that they cannot be imported
from commexp.api import compose_config
from commexp.config.plan import prepare
from commexp.launch.launch import launch
assert launch(prepare(compose_config(["dataset=linreg", "rounds=2", "outputs=" + sys.argv[1]]))).status == "completed"
for name in {DRAWING}:
    del sys.modules[name]

import commexp
{UNDRAWN}

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split()] + [
        ("rest", ctypes.c_size_t * 5)]

def mapped():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = Mallinfo
    before, kept = libc.mallinfo2().hblks, torch.empty(64 << 20, dtype=torch.uint8)
    return libc.mallinfo2().hblks - before

before = mapped(), dict(os.environ), sys.argv[:]
for words in (sys.argv[2:], ["model.width=8", "batch_size=4", "rounds=1", "workers=2"]):
    commexp.run(*words, "outputs=" + sys.argv[1])
after = mapped(), dict(os.environ), sys.argv[:]
assert before == after, (before, after)
"""


def test_malloc_and_environment_of_a_fresh_process(tmp_path: Path) -> None:
    """Large blocks go back to the system, as before: that they do not is for our own command. Training imports no
    package that draws: each process would take a second for it."""
    command = [sys.executable, "-c", FRESH, str(tmp_path), *TINY]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@contextmanager
def _wide() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def _elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def _precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": _wide,
    "device": _elsewhere,
    "device context": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "precision": _precision,
}


@pytest.fixture(scope="module")
def undisturbed_losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    with pytest.MonkeyPatch.context() as patch:
        warm.draw_nothing(patch.setattr)
        return losses(commexp.run(*NETWORK, f"outputs={tmp_path_factory.mktemp('alone')}"))


def losses(run: Run) -> list[float]:
    return [*run.metrics["train_loss"], *run.metrics["test_loss"]]


DRAWN = [pytest.param(w, marks=[pytest.mark.drawn] * (w == "device")) for w in SURROUNDINGS]


@pytest.mark.parametrize("where", DRAWN)
def test_settings_of_the_caller_have_no_part_in_a_result(
    where: str, tmp_path: Path, undisturbed_losses: list[float]
) -> None:
    with SURROUNDINGS[where]():
        before = picture()
        run = commexp.run(*NETWORK, f"outputs={tmp_path}")
        after = picture()
    assert {key for key in before if before[key] != after[key]} == set()
    assert losses(run) == undisturbed_losses


@dataclass
class Mine:
    a: int = 1


@pytest.mark.parametrize("initialised", [False, True])
def test_hydra_of_the_caller(initialised: bool, tmp_path: Path) -> None:
    """Its config loader, schemas that bear the names of our files, and resolvers."""
    store = ConfigStore.instance()
    kept = {**store.repo}
    for name in ("config", "schema", "commexp_schema"):
        store.store(name=name, node=Mine)
    store.store(group="algo", name="sgd", node=Mine)
    names = ("choices", "sweep_name", "commexp_choices")
    for name in names:
        OmegaConf.register_new_resolver(name, lambda *_: "mine", replace=True)
    (tmp_path / "theirs.yaml").write_text("a: 5\nb: ${choices:}")
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.2") if initialised else nullcontext():
            hydra = GlobalHydra.instance().hydra
            assert commexp.run(*TINY, f"outputs={tmp_path}").status == "completed"
            assert GlobalHydra.instance().hydra is hydra
            assert store is ConfigStore.instance()
            if initialised:
                config = compose("theirs")
                assert (config.a, config.b, str(getbase())) == (5, "mine", "1.2")
        assert store.load("config.yaml").node == {"a": 1}
        assert all(OmegaConf.create({"x": f"${{{name}:}}"}).x == "mine" for name in names)
    finally:
        store.repo = kept
        for name in names:
            OmegaConf.clear_resolver(name)


def test_threads_take_turns(tmp_path: Path) -> None:
    """Each thread's runs are those of a process of its own: models begin alike, and every log is in its own folder."""
    words = [(*NETWORK, f"seed={seed}", f"comm.deterministic={str(seed % 2 == 0).lower()}") for seed in range(4)]
    found: dict[int, Run] = {}

    def one(n: int) -> None:
        found[n] = commexp.run(*words[n], f"outputs={tmp_path / 'together'}")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(found) == [0, 1, 2, 3]
    for n, run in found.items():
        assert losses(run) == losses(commexp.run(*words[n], f"outputs={tmp_path / 'apart'}"))
        assert (run.folder / "run.log").read_text(encoding="utf-8").count("completed") == 1


def test_a_run_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = commexp.run(*TINY, "outputs=here")
    assert run.folder == tmp_path / "here" / "runs" / run.name
    monkeypatch.chdir("/")
    assert len(run.metrics)
    assert run.status == "completed"


def test_closed_streams(tmp_path: Path) -> None:
    """What is written for a stream that was closed goes nowhere, not into the next file that was opened."""
    words = " ".join([*TINY, "outputs=o"])
    line = f"exec {sys.executable} -c '{UNDRAWN}; from commexp.cli.run import main; main()' {words} 0<&- 1>&- 2>&-"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, timeout=120)
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    assert (done.returncode, Run(folder).status) == (0, "completed")
    assert b"Error" not in done.stderr + done.stdout
