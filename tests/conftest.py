"""What every test may use: a scratch outputs folder, the command line as a real process, runs from Python."""

from __future__ import annotations

import os
import sys

import warm

if "PYTEST_XDIST_WORKER" not in os.environ and any(word.startswith(("-n", "--numprocesses")) for word in sys.argv):
    warm.begin()  # it imports what the workers need while this process does

import gc
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import quick
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from registry import options

from commexp import api
from commexp.api import run_experiment
from commexp.cli.run import main
from commexp.config.schema import CONF
from commexp.launch.sweep import Composer
from commexp.run_folder import Run
from commexp.topologies import Ring, Topology

COLLECTED = "hypothesis.strategies sklearn.linear_model torch._dynamo torchvision xdist.remote"  # what tests import
gc.disable()  # until everything is imported and collected
torch.set_num_threads(1)
os.environ["COLUMNS"] = "500"  # of the terminal: tables are whole
quick.begin()
warm.start_cold_again()
warm.write_without_waiting()
composer = cache(Composer)  # as Hydra composes, but the options that one test has chosen are merged once for all
api.compose = lambda name, overrides: composer().compose(overrides)  # type: ignore[assignment]

Graphs = dict[str, Callable[..., Topology]]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "drawn: pictures are really drawn, also by what is started warm")


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart() -> Iterator[None]:
    """Workers of pytest-xdist are started warm, too."""
    with patch.object(subprocess, "Popen", warm.Popen), patch.dict(os.environ, {warm.ALSO: COLLECTED}):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, then all others that start processes: nobody is left with them alone in the end; and scenes
    that are played together are one worker's."""
    from launch.beside import scene_of

    items.sort(key=lambda i: ("test_splits" not in i.nodeid, scene_of(i) is None, "tests/launch" not in i.nodeid))


def pytest_collection_finish() -> None:
    """What importing and collecting left behind need not be looked through again and again; and what tests
    leave need not be looked for as often as usual."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def environment() -> dict[str, str]:
    """Without a user's own settings; two test processes share two cores."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMMEXP", "HYDRA"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs ``commexp ARGS`` in an empty folder; ``start``: subprocess.run, where the start of python itself counts."""

    def call(*args: str, start: Cli = warm.run) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "commexp", *args]
        return start(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)

    return call


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """What the console script calls, in this process and an empty folder: a few seconds sooner."""

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        status = status_of(main, ["commexp", *args], monkeypatch)
        assert isinstance(status, int)
        return subprocess.CompletedProcess(args, status, *capfd.readouterr())

    return call


def status_of(program: Callable[[], object], words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """How a console script ends, called in this process."""
    monkeypatch.setattr(sys, "argv", words)
    with patch.dict(os.environ, environment(), clear=True):
        try:
            program()
        except SystemExit as end:
            return end.code
        finally:
            gc.enable()
            gc.freeze()
    return 0


@pytest.fixture(autouse=True)
def _drawing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pictures are made, but drawn only in tests that are marked so: that takes most of a short run's time."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("drawn") is None:
            patch.setenv(warm.UNDRAWN, "1")
            warm.draw_nothing(patch.setattr)
        yield


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """Runs an experiment in this process, results under the test's own folder."""

    def call(*overrides: str, figures: bool = False) -> Run:
        return run_experiment([*overrides, f"outputs={tmp_path / 'outputs'}", "launch.device=cpu"], figures=figures)

    return call


@pytest.fixture(scope="session")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """See launch/beside.py."""
    from launch.beside import play, scene_of

    scenes = [scene for item in request.session.items if (scene := scene_of(item))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(warm.UNDRAWN, "1")
        return play(scenes, lambda name: tmp_path_factory.mktemp(name[:30]))


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """Every topology of conf/topology for eight workers, to be called with the fields that all have."""
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "file.txt").write_text("".join(f"0 {n}\n{n} {n % 7 + 1}\n" for n in range(1, 8)))
    (folder / "directed_file.txt").write_text("".join(f"{n} {(n + 1) % 8}\n" for n in range(8)))
    np.savetxt(folder / "matrix.txt", Ring().mixings(8, 0)[0].matrix.toarray(), fmt="%.17g")
    made: Graphs = {}
    for name in options("topology"):
        node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "topology" / f"{name}.yaml"), resolve=False)
        if node.get("path") == "???":
            node["path"] = str(folder / f"{name}.txt")
        if name == "islands":
            node["islands"] = 2
        cls = get_class(node.pop("_target_"))
        made[name] = lambda cls=cls, node=node, **fields: cls(**node, **fields)
    return made
