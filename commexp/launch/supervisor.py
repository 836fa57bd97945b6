"""torch's elastic agent, and what it makes of processes that die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.subprocess_handler import get_subprocess_handler

from commexp.ranks import REVIVED

GRACE = 5.0  # seconds for the others to end once the first process has


class Agent(LocalElasticAgent):
    """``forgives``: the death of another process than the first is no failure, because the run goes on without it; and
    when the first one has come to its end, those that hang are ended, too. ``revives``: as long as there are restarts
    left, another takes the place of the one that died. SIGINT and SIGTERM are passed on to the processes as SIGTERM;
    a second one ends them, and this process, at once. ``leave``: called before that."""

    def __init__(
        self, spec: WorkerSpec, logs: LogsSpecs, forgives: bool, revives: bool, leave: Callable[[], object]
    ) -> None:
        super().__init__(spec, logs)
        self.forgives, self.revives, self.leave = forgives, revives, leave
        self._over: float | None = None
        self._told = False
        self._heed()

    def _heed(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # it gets no signals
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._told:
            context: Any = self._pcontext
            for handler in context.subprocess_handlers.values() if context else ():
                with suppress(ProcessLookupError):
                    os.killpg(handler.proc.pid, signal.SIGKILL)
            self.leave()
            os._exit(128 + number)
        self._told = True
        raise SignalException(f"signal {number}", signal.SIGTERM)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._over = None
        started: dict[int, Any] = super()._start_workers(worker_group)
        self._heed()  # torch has set handlers of its own
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self.forgives:
            context: Any = self._pcontext
            codes = {rank: handler.proc.poll() for rank, handler in context.subprocess_handlers.items()}
            if codes[0] == 0:
                self._over = self._over or time.monotonic()
                hung = [r for r, code in codes.items() if code is None] if self._late() else []
                for rank in hung:
                    with suppress(ProcessLookupError):
                        os.killpg(context.subprocess_handlers[rank].proc.pid, signal.SIGKILL)
            for rank, code in codes.items():
                ended = codes[0] == 0  # what becomes of the others then is of no account
                if rank and code is not None and (code < 0 or (code and ended)):
                    if self.revives and self._remaining_restarts > 0 and not ended:
                        self._remaining_restarts -= 1
                        self._revive(context, worker_group, rank)
                    else:
                        context._running_local_ranks.discard(rank)  # what has ended well, the agent takes for gone
        found: RunResult = super()._monitor_workers(worker_group)
        return found

    def _revive(self, context: Any, worker_group: WorkerGroup, rank: int) -> None:
        handler = get_subprocess_handler(
            context.entrypoint,
            context.args[rank],
            {**context.envs[rank], REVIVED: "1"},
            context.stdouts[rank],
            context.stderrs[rank],
            rank,
        )
        context.subprocess_handlers[rank], worker_group.workers[rank].id = handler, handler.proc.pid

    def _late(self) -> bool:
        return self._over is not None and time.monotonic() - self._over > GRACE
