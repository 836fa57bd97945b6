"""Workers on a clock of events."""

from __future__ import annotations

from collections.abc import Sequence

from commexp.algorithms.base import WorkerUpdate, WorkItem
from commexp.network import EventClock
from commexp.server.apart import Apart


class Simulated(Apart):
    """All in this process, on a clock of events. A worker's work is done when its message is dealt with."""

    clock: EventClock

    def serve(self, worker: int, order: WorkItem, gradients: float, up: int) -> bool:
        down = order.body.numel() * order.body.element_size() if order.version else 0
        self.clock.serve(worker, gradients, down, up)
        return True

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        return self.clock.arrivals(every)

    def letter(self, worker: int) -> WorkerUpdate:
        return WorkerUpdate(self.method.message(worker), self.method.done[worker])
