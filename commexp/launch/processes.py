"""Starts the processes of a run on this host through torch's elastic launcher, and starts them anew when one dies."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from commexp.comm import SECRET, made
from commexp.config.messages import LaunchError, UserError
from commexp.config.plan import Plan
from commexp.experiment.execute import folder_of, lock_finished
from commexp.launch.agent import Agent
from commexp.launch.rendezvous import HOST, Loopback
from commexp.ranks import MEETING
from commexp.run_folder import FINISHED, Run, remove_unheld, write_json
from commexp.run_folder import hold as hold_open
from commexp.server.channel import no_port

# python -c puts the current folder before everything else that is imported: it goes before anything is
START = "import sys; sys.path[:1] = [p for p in sys.path[:1] if p]; from commexp.cli.worker import main; main()"
SAFE = ("-P",) if sys.version_info >= (3, 11) else ()  # where python knows the option, whatever it starts heeds it, too
KILLED = "killed it"
PREFIX, TASK = "commexp-", "task.json"
MONITOR = 0.1  # seconds between two looks at the processes
ELASTIC = "torch.distributed.elastic"
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run_in_processes(plan: Plan, hold: ExitStack) -> Run:
    """launch.nproc processes, each running ``commexp.cli.worker``; the first one shows its progress here.

    Raises UserError for a plan that does not fit or is refused by the workers, LaunchError if a process dies and
    launch.max_restarts have been used up.
    """
    wanted, run = plan.config.launch, folder_of(plan)
    plan.check_processes(wanted.nproc, f"launch.nproc={wanted.nproc}")
    if not plan.config.rerun:
        lock_finished(run, hold)
        if run.finished:
            return run
    if run.is_locked():
        with run.locked():
            pass  # nobody need wait for it within launch.timeout
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith(ELASTIC)]
    levels = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # we say what happened, in one line
    alone = threading.current_thread() is not threading.main_thread()  # which gets no signals
    handlers = {} if alone else {number: signal.getsignal(number) for number in HANDLED}
    with scratch_folder() as scratch:  # where nobody else can look
        task, meeting = Path(scratch) / TASK, Path(scratch) / "meeting"
        write_json(task, {"name": plan.name, "config": plan.resolved})
        meeting.mkdir()
        ours = {
            "COMMEXP_LAUNCHER": str(os.getpid()),
            "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGHUP,SIGQUIT",
            "PYTHONSAFEPATH": "1",
            MEETING: str(meeting),
            SECRET: made(),
        }
        before = {name: os.environ.get(name) for name in ours}
        os.environ |= ours
        try:
            spec = WorkerSpec(
                role="default",
                local_world_size=wanted.nproc,
                rdzv_handler=Loopback(_checked(wanted.port), uuid.uuid4().hex),
                entrypoint=sys.executable,
                args=(*SAFE, "-c", START, str(task)),
                max_restarts=wanted.max_restarts,
                monitor_interval=MONITOR,
                local_addr=HOST,
            )
            logs, asynchronous = DefaultLogsSpecs(log_dir=scratch), plan.algorithm.asynchronous
            forgives = plan.tolerates_stragglers
            ended = Agent(spec, logs, forgives, asynchronous, lambda: shutil.rmtree(scratch, True)).run()
            if ended.is_failed():
                raise ChildFailedError(sys.executable, ended.failures)
        except ChildFailedError as error:
            reason = root_cause(error.failures)
            if wanted.max_restarts:
                reason += f" (after {wanted.max_restarts} restarts)"
            elif reason.endswith(KILLED):
                reason += "; launch.max_restarts=3 would go on from the last checkpoint"
            if run.recorded not in (None, *FINISHED):
                run.set_meta(status="failed", error=reason)
            raise LaunchError(reason) from error
        except SignalException as error:
            if run.recorded not in (*FINISHED, "interrupted"):  # what workers write that were told and had begun
                raise KeyboardInterrupt from error
        finally:
            for name, value in before.items():
                del os.environ[name]
                os.environ |= {} if value is None else {name: value}
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for logger, level in levels:
                logger.setLevel(level)
        refusal = Path(scratch) / "refusal"
        if refusal.is_file():
            raise UserError(refusal.read_text(encoding="utf-8"))
    with suppress(OSError):  # what its processes have left is shown all the same
        hold.enter_context(run.locked())
    return run


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder of this launcher's own for what it and its processes have to tell each other. Those that launchers of
    the same user have left who were killed are removed: nobody holds them."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}????????"):
        with suppress(OSError):
            if path.lstat().st_uid == os.getuid() and (TASK in os.listdir(path) or not os.listdir(path)):
                remove_unheld(path)
    handle = None
    while handle is None:
        scratch = tempfile.mkdtemp(prefix=PREFIX)
        with suppress(FileNotFoundError):  # another launcher took it for one that was left
            handle = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
            if not hold_open(handle) or not os.path.isdir(scratch):
                os.close(handle)
                handle = None
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def _checked(port: int) -> int:
    """Raises LaunchError if nobody can listen at this port of the loopback interface."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise LaunchError(no_port(port, error)) from error
    return port


def root_cause(failures: dict[int, ProcessFailure]) -> str:
    """One line on the process that failed first: not on those that only lost it, or were stopped because of it."""
    silent = [r for r, f in failures.items() if _lost(f) == "silent"]
    killed = [r for r, f in failures.items() if f.exitcode == -signal.SIGKILL and not _told(f)]
    if silent and killed:  # by the others (worker.py)
        return f"rank {killed[0]}: gave no answer to the others in launch.timeout"
    order = ("", "silent", "gone", "stopped")
    rank, failure = min(failures.items(), key=lambda item: (order.index(_lost(item[1])), item[0]))
    if failure.exitcode < 0:
        return f"rank {rank}: {failure.signal_name()} {KILLED}"
    text = " ".join(str(_told(failure).get("message") or f"ended with exit status {failure.exitcode}").split())
    return text if text.startswith("rank ") else f"rank {rank}: {text}"


def _told(failure: ProcessFailure) -> dict[str, Any]:
    """What the process wrote about its end."""
    content = failure.error_file_data
    told = content.get("message", {}) if isinstance(content, dict) else {}
    return told if isinstance(told, dict) else {}


def _lost(failure: ProcessFailure) -> str:
    """gone or silent, if the process lost another one; stopped, if the launcher ended it because of another one."""
    told = _told(failure)
    if not told and failure.exitcode == -signal.SIGTERM:
        return "stopped"
    return str(told.get("extraInfo", {}).get("lost", ""))
