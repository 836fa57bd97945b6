"""What a launcher tells its processes through the environment."""

from __future__ import annotations

import os

REVIVED = "COMMEXP_REVIVED"  # set where a process takes the place of one that has died
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def joins() -> bool:
    """Whether this process has been started as one of several: by torchrun, srun, or by hand."""
    return all(name in os.environ for name in NEEDED)


def rank() -> int:
    """Of this process; 0 where it is alone."""
    return int(os.environ["RANK"]) if joins() else 0


def local(name: str, otherwise: str) -> int:
    """LOCAL_RANK or LOCAL_WORLD_SIZE; launchers other than torchrun may not set them: one host then."""
    return int(os.environ.get(name, os.environ[otherwise]))
