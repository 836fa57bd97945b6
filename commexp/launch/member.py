"""One of several processes: it finds the others, runs its workers, and says in one line what went wrong."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from commexp.comm import SECRET, Links, LostProcessError, Processes, is_given
from commexp.config.messages import LaunchError
from commexp.config.plan import Plan
from commexp.experiment.execute import execute
from commexp.launch.single import threads, usable
from commexp.ranks import LAUNCHER, MEETING, REVIVED, begin_run, local, one_host, rank
from commexp.run_folder import Run
from commexp.server.channel import rendezvous_store
from commexp.server.endpoints import WorkerEndpoint

PR_SET_PDEATHSIG = 1  # of prctl(2)
UNPROTECTED = "whoever reaches the ports of this run can join it; give all its processes the same secret"


def run_as_member(plan: Plan, hold: ExitStack) -> Run:
    """Raises UserError, and LaunchError naming this rank and the cause."""
    _die_with_launcher()
    world, here = int(os.environ["WORLD_SIZE"]), local("LOCAL_WORLD_SIZE", "WORLD_SIZE")
    plan.check_processes(world, f"{world} processes")
    device, backend = _place(plan.config.launch.device, here)
    timeout = plan.config.launch.timeout
    _stay_here()
    begin_run()
    pids: list[int] = []
    # what a process needs that takes the place of one that has died: the others are in the middle of the run
    links: Links = WorkerEndpoint(rank(), world, timedelta(seconds=timeout), plan.algorithm.asynchronous)
    try:
        if REVIVED not in os.environ:
            if rank() == 0 and world > 1 and not is_given():
                print(f"commexp: note: {SECRET} is not set: {UNPROTECTED}", file=sys.stderr, flush=True)
            _join(backend, timeout)
            links = Processes(timedelta(seconds=timeout))
            pids = links.counts(torch.tensor([os.getpid()]))[:, 0].tolist()
        with threads(plan, max(1, torch.get_num_threads() // here)):
            return execute(plan, device, links, hold)
    except RuntimeError as error:
        cause = links.explain(error)
        if isinstance(cause, LostProcessError):
            raise LaunchError(str(cause), cause.how, [pid for pid in pids if pid != os.getpid()]) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _me() -> str:
    return f"rank {os.environ['RANK']}"


def _place(wanted: str, here: int) -> tuple[torch.device, str]:
    """Device and back end: NCCL where each of ``here`` processes on this host has a GPU of its own, else Gloo."""
    gpus = torch.cuda.device_count() if wanted in ("auto", "cuda") else 0
    if not gpus:
        return usable("cpu" if wanted == "auto" else wanted), "gloo"
    device = usable(f"cuda:{local('LOCAL_RANK', 'RANK') % gpus}")
    torch.cuda.set_device(device)
    return device, "nccl" if gpus >= here else "gloo"


def _join(backend: str, timeout: float) -> None:
    """Meets the other processes."""
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    patience, world = timedelta(seconds=timeout), int(os.environ["WORLD_SIZE"])
    try:
        if MEETING not in os.environ:
            _host_store(patience)
        store = rendezvous_store(patience, "torch")
        dist.init_process_group(backend, store=store, rank=rank(), world_size=world, timeout=patience)
    except (RuntimeError, ValueError, OSError) as error:
        if "address already in use" in str(error).lower() or "EADDRINUSE" in str(error):
            raise LaunchError(f"{_me()}: port {port} of {address} is in use; give another MASTER_PORT") from error
        raise LaunchError(
            f"{_me()}: did not meet the {os.environ['WORLD_SIZE']} processes at {address}:{port} within "
            f"launch.timeout={timeout:g} s; see that all are started and can reach that address"
        ) from error


@cache
def _host_store(patience: timedelta) -> object:
    """The store at MASTER_ADDR and MASTER_PORT, which rank 0 keeps as long as it lives; torchrun has one of its own."""
    address, port, world = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), int(os.environ["WORLD_SIZE"])
    hosts = rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return TCPStore(address, port, world, is_master=hosts, timeout=patience, multi_tenant=True)


def _stay_here() -> None:
    """On one host everything listens on the loopback interface alone."""
    if one_host():
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)


def _die_with_launcher() -> None:
    """Ends this process at once when its launcher is gone for any reason, so that no process still works on the run
    when the user starts it again."""
    if LAUNCHER not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    parent = int(os.environ.get(LAUNCHER, os.getppid()))
    if sys.platform == "linux":  # the kernel sees to it, even if this process hangs or is stopped
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def joined(plan: Plan) -> Iterator[tuple[torch.device, Links]]:
    """The device of this process and its links to those that torchrun has started with it, as in a run of the plan; for
    measurements. Raises UserError, and LaunchError where they do not meet."""
    world, here = int(os.environ["WORLD_SIZE"]), local("LOCAL_WORLD_SIZE", "WORLD_SIZE")
    plan.check_processes(world, f"{world} processes")
    _die_with_launcher()
    device, backend = _place(plan.config.launch.device, here)
    timeout = plan.config.launch.timeout
    _stay_here()
    try:
        _join(backend, timeout)
        yield device, Processes(timedelta(seconds=timeout))
    except RuntimeError as error:
        raise LaunchError(" ".join(str(error).split())) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
