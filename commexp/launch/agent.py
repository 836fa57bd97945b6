"""torch's elastic agent, and what it makes of processes that die."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsSpecs

GRACE = 5.0  # seconds for the others to end once the first process has


class Agent(LocalElasticAgent):
    """``forgives``: the death of another process than the first is no failure, because the run goes on without it; and
    when the first one has come to its end, those that hang are ended, too."""

    def __init__(self, spec: WorkerSpec, logs: LogsSpecs, forgives: bool = False) -> None:
        super().__init__(spec, logs)
        self.forgives = forgives
        self._over: float | None = None

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._over = None
        started: dict[int, Any] = super()._start_workers(worker_group)
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
            dead = {rank for rank, code in codes.items() if rank and code is not None and code < 0}
            context._running_local_ranks -= dead  # what has ended well, the agent takes for gone
        found: RunResult = super()._monitor_workers(worker_group)
        return found

    def _late(self) -> bool:
        return self._over is not None and time.monotonic() - self._over > GRACE
