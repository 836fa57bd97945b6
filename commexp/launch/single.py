"""One process, on a CPU or one GPU: all workers live in it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from commexp.config.messages import UserError
from commexp.config.plan import Plan
from commexp.experiment.execute import execute
from commexp.run_folder import Run

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)


def run_alone(plan: Plan, hold: ExitStack) -> Run:
    """Raises UserError for a device that is not there."""
    wanted = plan.config.launch.device
    device = usable(wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    with threads(plan, torch.get_num_threads()):
        return execute(plan, device, hold=hold)


def usable(name: str) -> torch.device:
    """The device of this name. Raises UserError."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"launch.device={name}: not usable here; give cpu, or auto") from error
    return device


def keep_memory() -> None:
    """For a process of our own: freed memory stays with it and is used again. The C library would give every large
    block back to the system and ask for it anew, page by page: on large models that takes longer than the
    arithmetic. The garbage collector, if it was off during imports, is on again and passes over what they made."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc's; elsewhere nothing is changed
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def threads(plan: Plan, usual: int) -> Iterator[None]:
    """Torch's, for a run: one where every split over processes must give the same bits: torch adds up in another order
    with more."""
    config, before = plan.config, torch.get_num_threads()
    torch.set_num_threads(config.launch.threads or (1 if config.comm.deterministic else usual))
    try:
        yield
    finally:
        torch.set_num_threads(before)
