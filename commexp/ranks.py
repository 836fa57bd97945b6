"""What a launcher tells its processes through the environment."""

from __future__ import annotations

import os

LAUNCHER = "COMMEXP_LAUNCHER"  # the process id of the launcher
ERROR_FILE = "COMMEXP_ERROR_FILE"  # where a process says how it failed
REVIVED = "COMMEXP_REVIVED"  # set where a process takes the place of one that has died
MEETING = "COMMEXP_MEETING"  # the folder in which processes meet that are started on this host
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


_runs = 0  # that this process has begun as one of several


def begin_run() -> None:
    """Counts a run; all processes begin the same runs in the same order."""
    global _runs
    _runs += 1


def run_number() -> int:
    """1 for the first run that this process takes part in, ...: under it the processes of a run find each other, where
    a script carries out several one after the other."""
    return _runs


def joins() -> bool:
    """Whether this process has been started as one of several: by torchrun, srun, or by hand."""
    return all(name in os.environ for name in NEEDED)


def rank() -> int:
    """Of this process; 0 where it is alone."""
    return int(os.environ["RANK"]) if joins() else 0


def local(name: str, otherwise: str) -> int:
    """LOCAL_RANK or LOCAL_WORLD_SIZE; launchers other than torchrun may not set them: one host then."""
    return int(os.environ.get(name, os.environ[otherwise]))


def one_host() -> bool:
    """Whether all processes of the run are on this host, so that nothing need listen beyond the loopback."""
    address = os.environ["MASTER_ADDR"]
    loopback = address in ("localhost", "::1") or address.startswith("127.")
    return loopback or os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
