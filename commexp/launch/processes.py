"""Starts the processes of a run on this host, and says in one line how they failed."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from commexp.comm import SECRET, made
from commexp.config.messages import LaunchError, UserError
from commexp.config.plan import Plan
from commexp.experiment.execute import folder_of, lock_finished
from commexp.launch.supervisor import KILLED, Supervisor, root_cause
from commexp.ranks import LAUNCHER, MEETING
from commexp.run_folder import FINISHED, Run, remove_unheld, write_json
from commexp.run_folder import hold as hold_open
from commexp.server.channel import LOOPBACK, no_port

# python -c puts the current folder before everything else that is imported: it goes before anything is
START = "import sys; sys.path[:1] = [p for p in sys.path[:1] if p]; from commexp.cli.worker import main; main()"
SAFE = ("-P",) if sys.version_info >= (3, 11) else ()  # where python knows the option, whatever it starts heeds it, too
PREFIX, TASK = "commexp-", "task.json"


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
            pass  # so that the processes need not wait for the lock within launch.timeout
    with scratch_folder() as name:  # readable for this user only
        scratch = Path(name)
        task = {"name": plan.name, "config": plan.resolved, "given": list(plan.given), "command": sys.argv}
        write_json(scratch / TASK, task)
        (scratch / "meeting").mkdir()
        environment = {
            "MASTER_ADDR": LOOPBACK,
            "MASTER_PORT": str(_checked(wanted.port)),
            "PYTHONSAFEPATH": "1",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
            LAUNCHER: str(os.getpid()),
            MEETING: str(scratch / "meeting"),
            SECRET: made(),
        }
        supervisor = Supervisor(
            (sys.executable, *SAFE, "-c", START, str(scratch / TASK)),
            wanted.nproc,
            environment,
            scratch,
            wanted.max_restarts,
            tolerates=plan.tolerates_stragglers,
            revives=plan.rejoins,
            leave=lambda: shutil.rmtree(scratch, ignore_errors=True),
        )
        try:
            failures = supervisor.run()
        except KeyboardInterrupt:
            if run.recorded not in (*FINISHED, "interrupted"):  # what workers write that were told and had begun
                raise
            failures = {}
        if failures:
            reason = root_cause(failures)
            if wanted.max_restarts:
                reason += f" (after {wanted.max_restarts} restarts)"
            elif reason.endswith(KILLED):
                reason += "; launch.max_restarts=3 would go on from the last checkpoint"
            if run.recorded not in (None, *FINISHED):
                run.set_meta(status="failed", error=reason)
            raise LaunchError(reason)
        refusal = scratch / "refusal"
        if refusal.is_file():
            raise UserError(refusal.read_text(encoding="utf-8"))
    with suppress(OSError):  # what its processes have left is shown all the same
        hold.enter_context(run.locked())
    return run


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder in which this launcher and its processes exchange files. Removes the folders of killed launchers of the
    same user: no process holds their locks."""
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
    """Raises LaunchError if no process can listen at this port of the loopback interface."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise LaunchError(no_port(port, error)) from error
    return port
