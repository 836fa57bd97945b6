"""Keeps the processes of a run going: starts them, watches them, starts them anew when one dies, ends them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from commexp.ranks import ERROR_FILE, REVIVED

MONITOR = 0.1  # seconds between two looks at the processes
GRACE = 5.0  # seconds for the others to end once the first process has
PATIENCE = 30.0  # seconds for a process to end after SIGTERM
KILLED = "killed it"
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Failure(NamedTuple):
    """A process that has ended badly: its exit status, negative where a signal ended it, and what it has written about
    that. ``lost``: gone or silent, where it has lost another process; stopped, where the supervisor ended it."""

    status: int
    text: str
    lost: str


class Supervisor:
    """``nproc`` processes ``command`` on this host, each in a session of its own. ``environment``: of all of them.
    ``folder``: where they leave word of how they failed.

    When a process fails, the others are ended, and all are started anew, at most ``max_restarts`` times.
    ``tolerates``: the death of another process than the first is no failure, because the run goes on without it; and
    those that are still there a while after the first has ended well are ended. ``revives``: then, as long as restarts
    are left, another process takes the place of one that died.

    ``run`` passes SIGINT, SIGTERM, SIGHUP and SIGQUIT on to the processes as SIGTERM; a second one ends them, and this
    process, at once. ``leave``: is called before that.
    """

    def __init__(
        self,
        command: Sequence[str],
        nproc: int,
        environment: Mapping[str, str],
        folder: Path,
        max_restarts: int,
        tolerates: bool,
        revives: bool,
        leave: Callable[[], object],
    ) -> None:
        self.command, self.nproc, self.environment, self.folder = command, nproc, environment, folder
        self.restarts_left, self.tolerates, self.revives, self.leave = max_restarts, tolerates, revives, leave
        self._generation = 0
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._interrupted = False

    def run(self) -> dict[int, Failure]:
        """Returns when all processes have ended: the failures of the last generation, by rank; none if all is well.
        Raises KeyboardInterrupt once it was interrupted and they have ended."""
        alone = threading.current_thread() is not threading.main_thread()  # which gets no signals
        before = {} if alone else {number: signal.signal(number, self._interrupt) for number in HANDLED}
        try:
            while True:
                failures = self._run_generation()
                if not failures or not self.restarts_left:
                    return failures
                self.restarts_left -= 1
                self._generation += 1
        finally:
            self._stop(0.0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_generation(self) -> dict[int, Failure]:
        self._processes = {rank: self._start(rank) for rank in range(self.nproc)}
        watched, ended_at = set(self._processes), None
        while watched:
            time.sleep(MONITOR)
            if self._interrupted:
                self._stop(PATIENCE)
                raise KeyboardInterrupt
            codes = {rank: self._processes[rank].poll() for rank in watched}
            if self.tolerates and self._processes[0].poll() == 0:
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > GRACE:
                    self._stop(0.0)
                watched -= {rank for rank, code in codes.items() if code is not None}  # however they have ended
                continue
            for rank, code in codes.items():
                if code is not None and code < 0 and rank and self.tolerates and codes.get(0) is None:
                    if self.revives and self.restarts_left:
                        self.restarts_left -= 1
                        self._processes[rank] = self._start(rank, {REVIVED: "1"})
                    else:
                        watched.discard(rank)
                elif code == 0:
                    watched.discard(rank)
                elif code is not None:
                    return self._failures(watched)
        return {}

    def _start(self, rank: int, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        own = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.nproc),
            "LOCAL_WORLD_SIZE": str(self.nproc),
            "TORCHELASTIC_RESTART_COUNT": str(self._generation),  # by its name under torchrun
            ERROR_FILE: str(self._error_file(rank)),
        }
        environment = {**os.environ, **self.environment, **own, **(more or {})}
        return subprocess.Popen(self.command, env=environment, start_new_session=True)

    def _error_file(self, rank: int) -> Path:
        return self.folder / f"error-{self._generation}-{rank}.json"

    def _failures(self, watched: Collection[int]) -> dict[int, Failure]:
        """Ends the other processes; how each of those watched has failed."""
        self._stop(PATIENCE)
        failures = {}
        for rank in sorted(watched):
            status = self._processes[rank].returncode
            if status:
                told = {}
                with suppress(OSError, ValueError):
                    told = json.loads(self._error_file(rank).read_text(encoding="utf-8"))
                lost = "stopped" if not told and status == -signal.SIGTERM else str(told.get("lost", ""))
                failures[rank] = Failure(status, str(told.get("message", "")), lost)
        return failures

    def _stop(self, patience: float) -> None:
        """SIGTERM to all processes, and SIGKILL to those that are still there after so many seconds, if any."""
        if patience:
            self._signal(signal.SIGTERM)
        end = time.monotonic() + patience
        while time.monotonic() < end and any(process.poll() is None for process in self._processes.values()):
            time.sleep(MONITOR)
        self._signal(signal.SIGKILL)
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):  # one that the kernel holds cannot be killed
                process.wait(PATIENCE)

    def _signal(self, number: int) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            self._signal(signal.SIGKILL)
            self.leave()
            os._exit(128 + number)
        self._interrupted = True


def root_cause(failures: Mapping[int, Failure]) -> str:
    """One line on the process that failed first: not on those that only lost it, or were stopped because of it."""
    silent = [rank for rank, failure in failures.items() if failure.lost == "silent"]
    killed = [rank for rank, failure in failures.items() if failure.status == -signal.SIGKILL and not failure.text]
    if silent and killed:  # by the others (cli/worker.py)
        return f"rank {killed[0]}: gave no answer to the others in launch.timeout"
    order = ("", "silent", "gone", "stopped")
    rank, failure = min(failures.items(), key=lambda item: (order.index(item[1].lost), item[0]))
    if failure.status < 0:
        return f"rank {rank}: {signal.Signals(-failure.status).name} {KILLED}"
    text = " ".join(failure.text.split()) or f"ended with exit status {failure.status}"
    return text if text.startswith("rank ") else f"rank {rank}: {text}"
