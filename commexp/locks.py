"""Locks of the operating system on open files: it lets go when the holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # no fifo blocks it


def is_held(path: Path) -> bool | None:
    """Whether a process holds the lock on this file; None where that cannot be known. Nothing is written, and whoever
    wants the lock in that moment has to try a second time."""
    try:
        handle = os.open(path, READING)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)
    return False


def hold(handle: int) -> bool:
    """Holds what is open for as long as it is. False where it has been removed in the meantime."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    return os.fstat(handle).st_nlink > 0


def remove_unheld(path: Path) -> None:
    """Removes a file or a folder unless a process holds it, or that cannot be known. What cannot be removed stays."""
    with suppress(OSError):
        handle = os.open(path, READING | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(handle)
