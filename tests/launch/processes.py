"""Real processes for tests: started with the environment that torchrun gives, ended whatever happens."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import warm
from conftest import environment


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def ranks(
    processes: int,
    command: Sequence[str],
    folder: Path,
    start: Callable[..., Any] = warm.Popen,
    only: Sequence[int] | None = None,
    **env: str,
) -> list[subprocess.Popen[str]]:
    """``python COMMAND`` once for each rank, or for those ``only``, in ``folder``."""
    port = free_port()
    started = []
    for rank in range(processes) if only is None else only:
        own = {
            "RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        started.append(
            start(
                [sys.executable, *command],
                cwd=folder,
                env={**environment(), **own, **env},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    return started


def wait_for(started: Sequence[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of each; all are killed when one fails or time is up."""
    end = time.monotonic() + seconds
    try:
        while any(p.poll() is None for p in started) and time.monotonic() < end:
            if any(p.poll() for p in started):
                time.sleep(1)  # the others may still tell why
                break
            time.sleep(0.05)
    finally:
        for process in started:
            process.kill()
    said = [p.communicate() for p in started]
    return [(p.returncode, *text) for p, text in zip(started, said, strict=True)]
