"""The workers of an asynchronous method as its server sees them: one in each other process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from commexp.algorithms.base import WorkerUpdate, WorkItem
from commexp.comm import unpack_frames
from commexp.compressors import CorruptMessageError, Message
from commexp.config.plan import Plan
from commexp.network import WallClock
from commexp.problems import PerWorkerProblem
from commexp.server.channel import copied_bytes
from commexp.server.endpoints import FAULT, JOINED, LOST, PackedUpdate, ServerEndpoint
from commexp.server.workers import LocalWorkers

LOOK = 0.5  # seconds between two looks at whether the run is to stop


class WorkersOverProcesses(LocalWorkers):
    """Worker n is in process n + 1. ``report``: is told how many gradients were not finite, and a text about the first
    if the run stops at it. ``stops``: whether the run is to stop."""

    clock: WallClock

    def __init__(
        self,
        plan: Plan,
        problem: PerWorkerProblem,
        server: ServerEndpoint,
        clock: WallClock,
        report: Callable[[int, str], None],
        stops: Callable[[], bool],
    ) -> None:
        super().__init__(plan, problem, clock)
        self.server, self.report, self.stops = server, report, stops
        self.items: list[dict[int, WorkItem]] = [{} for _ in self.codecs]  # by version, those that may be worked on
        self.updates: dict[int, PackedUpdate] = {}

    def serve(self, worker: int, item: WorkItem, gradients: float, up: int) -> bool:
        if worker + 1 not in self.server.joined:
            return False
        self.items[worker][item.version] = item
        self.server.send(worker + 1, item._replace(body=copied_bytes(item.body)))
        return True

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        """Also none, where a worker says that its gradients were not finite, or the run is to stop."""
        self.updates = {}
        while not self.stops():
            update = self.server.next(LOOK)
            if update is not None:
                n = update.rank - 1
                if update.kind == JOINED:
                    self.items[n] = {}
                    self.clock.came(n)
                    self.method.joined(n)
                elif update.kind == LOST:
                    self.updates.pop(n, None)
                    self.method.lost(n)
                elif update.kind == FAULT:
                    self.report(update.bad, update.text)
                    return []
                elif update.version not in self.items[n]:
                    self.server.reject(update.rank, "it answers an item that was not sent")
                elif self._is_readable(update):
                    self.report(update.bad, "")
                    self.clock.received(n, update.at, update.busy / 1e6, update.overwritten)
                    self.updates[n] = update
            if self.updates and self.updates.keys() >= set(every) - self.method.away:
                return sorted(self.updates)
        self.updates = {}
        return []

    def update(self, worker: int) -> WorkerUpdate:
        update, items = self.updates[worker], self.items[worker]
        for version in [v for v in items if v < update.version]:
            del items[version]
        base = items[update.version] if update.version < max(items) else None
        return WorkerUpdate(self._read(update), update.local_steps, base)

    def _read(self, update: PackedUpdate) -> Message:
        """Raises CorruptMessageError."""
        codec, x = self.codecs[update.rank - 1], self.method.x
        return unpack_frames([update.body.to(x.device)], Message({}, len(x), x.dtype, 0.0, codec))[0]

    def _is_readable(self, update: PackedUpdate) -> bool:
        """Whether the message decodes; else its process is lost."""
        try:
            message = self._read(update)
            message.codec.decode(message)
        except CorruptMessageError as error:
            self.server.reject(update.rank, error)
            return False
        return True
