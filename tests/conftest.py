"""What every test may use: a scratch outputs folder, the command line as a real process, runs from Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from commexp.api import run_experiment
from commexp.rundir import Run

torch.set_num_threads(1)

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """Without a user's own settings; two test processes share two cores."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMMEXP", "HYDRA"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs ``commexp ARGS`` in an empty folder."""

    def call(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "commexp", *args]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, **options
        )  # type: ignore[call-overload, no-any-return]

    return call


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """Runs an experiment in this process, results under the test's own folder."""

    def call(*overrides: str, figures: bool = False) -> Run:
        return run_experiment([*overrides, f"outputs={tmp_path / 'outputs'}", "launch.device=cpu"], figures=figures)

    return call
