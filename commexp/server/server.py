"""The server of workers that have a process each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from commexp.algorithms.base import WorkerUpdate, WorkItem
from commexp.comm import unpack_frames
from commexp.compressors import CorruptMessageError, Message
from commexp.config.plan import Plan
from commexp.network import WallClock
from commexp.problems import PerWorkerProblem
from commexp.server.apart import Apart
from commexp.server.hub import FAULT, JOINED, LOST, Hub, Said
from commexp.server.lines import as_bytes

log = logging.getLogger("commexp")
LOOK = 0.5  # seconds between two looks at who has been silent for too long


class AtServer(Apart):
    """The server's process. A worker that is silent for launch.timeout while it has an order counts as lost."""

    clock: WallClock

    def __init__(
        self,
        plan: Plan,
        problem: PerWorkerProblem,
        hub: Hub,
        clock: WallClock,
        heard: Callable[[int, str], None],
        stops: Callable[[], bool],
    ) -> None:
        super().__init__(plan, problem, clock)
        self.hub, self.heard, self.stops = hub, heard, stops
        self.orders: list[dict[int, WorkItem]] = [{} for _ in self.codecs]  # by version, those that may be worked on
        self.letters: dict[int, Said] = {}
        self.looked, self.alone = time.monotonic(), 0.0  # when it looked around, and for how long nobody has been there

    def serve(self, worker: int, order: WorkItem, gradients: float, up: int) -> bool:
        if worker not in self.hub.there:
            return False
        self.orders[worker][order.version] = order
        self.hub.send(worker, order.version, order.messages_received, order.done, order.kind, as_bytes(order.body))
        return True

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        """Also none, where a worker says that its gradients were not finite, or the run is to stop. Raises RuntimeError
        where nobody has been there for launch.timeout."""
        self.letters = {}
        while not self.stops():
            said = self.hub.next(LOOK)
            if time.monotonic() - self.looked > LOOK:
                self._look_around()
            if said is None:
                pass
            elif said.kind == JOINED:
                self.orders[said.worker] = {}
                self.clock.came(said.worker)
                self.method.joined(said.worker)
            elif said.kind == LOST:
                self._lose(said.worker)
            elif said.kind == FAULT:
                self.heard(said.bad, bytes(said.body.tolist()).decode())
                return []
            elif not self._readable(said):
                self.hub.close(said.worker)
                if self.hub.lose(said.worker):
                    self._lose(said.worker)
            else:
                self.heard(said.bad, "")
                self.clock.heard(said.worker, said.at, said.busy / 1e6, said.skipped)
                self.letters[said.worker] = said
            if self.letters and self.letters.keys() >= set(every) - self.method.away:
                return sorted(self.letters)
        self.letters = {}
        return []

    def letter(self, worker: int) -> WorkerUpdate:
        said, orders = self.letters[worker], self.orders[worker]
        for version in [v for v in orders if v < said.version]:
            del orders[version]
        base = orders[said.version] if said.version < max(orders) else None
        return WorkerUpdate(self._read(said), said.done, base)

    def _read(self, said: Said) -> Message:
        """Raises CorruptMessageError."""
        codec, x = self.codecs[said.worker], self.method.x
        return unpack_frames([said.body.to(x.device)], Message({}, len(x), x.dtype, 0.0, codec))[0]

    def _readable(self, said: Said) -> bool:
        """Whether its worker can have sent it: on an order that it had, and a message that decodes."""
        try:
            message = self._read(said)
            message.codec.decode(message)
        except CorruptMessageError as error:
            log.warning("worker %d: a message that cannot be read: %s", said.worker, error)
            return False
        return said.version in self.orders[said.worker]

    def _look_around(self) -> None:
        """Time in which the server itself did something else does not count."""
        now = time.monotonic()
        waited, self.looked = min(now - self.looked, 2 * LOOK), now
        for n in self.hub.silent(waited):
            self.hub.lose(n)
            self._lose(n)
        self.alone = 0.0 if self.hub.there else self.alone + waited
        if self.alone > self.hub.timeout.total_seconds():
            raise RuntimeError("every worker is lost, and none came back in launch.timeout")

    def _lose(self, worker: int) -> None:
        self.letters.pop(worker, None)
        self.method.lost(worker)
