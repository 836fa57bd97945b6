"""Where and how a run was made: what meta.json tells besides the status."""

from __future__ import annotations

import datetime
import platform
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from commexp import __version__
from commexp.config.identity import RESULTS


def describe(device: torch.device) -> dict[str, Any]:
    """Command, machine and versions."""
    return {
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commexp": __version__,
        "results": RESULTS,
        "git_commit": git_commit(),
    }


def _program() -> str:
    name = Path(sys.argv[0]).name
    return "commexp" if name == "__main__.py" else name


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@cache
def git_commit() -> str | None:
    """The commit of commexp's own source tree, '-dirty' if changed; None where it is installed from a wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
