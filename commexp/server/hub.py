"""A server and workers that have a process each: the first process serves, process n + 1 is worker n.

Every worker has a line of its own to the server (lines.py), with a thread that listens at either end. A message stays
in its worker's place until the server reads it, and a newer one of the same worker takes that place. A worker that is
lost may come back: in a new process on a new line, or because it only was stopped for long. Each time it begins a new
life, and what it has sent in a former one is ignored.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from torch import Tensor

from commexp.comm.links import Links, Loss, Processes
from commexp.server.lines import NOTHING, Channel, Door

MESSAGE, FAULT, FAREWELL, JOINED, LOST = range(5)
ORDER, ANSWER = 6, 6  # numbers in the heads of messages
STOP = -1  # in the place of a version
LOOK = 0.1  # seconds between two looks at who has come
PATIENCE = 30.0  # seconds in which workers are to end ...
COMING = 10.0  # ... and for which it is waited for some that have not come yet


class Said(NamedTuple):
    """Of ``worker``: a MESSAGE, whose bytes are ``body``; a FAULT, a text; or that it has JOINED or is LOST.
    ``version``: of the order on which its work was done. ``done``: local steps in all. ``busy``: microseconds at work
    in this life. ``bad``: gradients that were not finite since it spoke last. ``at``: when it came, time.monotonic().
    ``skipped``: messages that nobody has read, whose place it took."""

    worker: int
    kind: int
    version: int = 0
    done: int = 0
    life: int = 0
    busy: int = 0
    bad: int = 0
    body: Tensor = NOTHING
    at: float = 0.0
    skipped: int = 0


class Hub(Links):
    """The server's process. It takes part in no collectives: rank 0 of 1. ``there``: the workers that have come and are
    not lost. ``port``: where they come, 0 for any that is free."""

    workers_wait = False

    def __init__(self, links: Processes, port: int = 0) -> None:
        self.workers, self.timeout, self.port = links.processes - 1, links.timeout, port
        self.losses: list[Loss] = []
        self.lives = [0] * self.workers
        self.there: set[int] = set()
        self.version = 0
        self._awaited: dict[int, float] = {}  # for how long, those that are to come, or have an order
        self._gone: set[int] = set()
        self._unsaved: set[int] = set()
        self._changed = threading.Condition()
        self._unread: dict[int, Said] = {}
        self._events: deque[Said] = deque()
        self._lines: dict[int, Channel] = {}
        self._door: Door | None = None
        self._left: set[int] = set()  # those that have taken leave

    def listen(self) -> None:
        """To be called once it is certain that there will be orders."""
        self._awaited = dict.fromkeys(range(self.workers), 0.0)
        self._door = Door(self.port, self.timeout, ORDER, ANSWER, range(self.workers), self._attend)

    def send(self, worker: int, version: int, heard: int, done: int, kind: int, body: Tensor) -> None:
        """An order to a worker that is there; see algorithms.base.WorkItem."""
        self.version = version
        save = worker in self._unsaved
        self._unsaved.discard(worker)
        self._awaited[worker] = 0.0
        self._send(worker, [version, heard, done, kind, self.lives[worker], int(save)], body)

    def next(self, seconds: float) -> Said | None:
        """What is to be dealt with next, within so many seconds: who has come or is lost; else the message that has
        been there for longest."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._unread, seconds)
            if self._events:
                said = self._events.popleft()
            elif self._unread:
                said = self._unread.pop(next(iter(self._unread)))
            else:
                return None
        n = said.worker
        if said.kind == LOST:
            return said if self.lose(n) else None
        if said.kind == JOINED or n not in self.there:  # or it was given up, and speaks again
            if n in self._gone:
                self.losses.append(Loss(n + 1, self.version + 1, [n], back=True))
            self.lives[n] += 1
            self.there.add(n)
            self._gone.discard(n)
            self._awaited.pop(n, None)
            return Said(n, JOINED)
        if said.life != self.lives[n]:
            return None
        self._awaited.pop(n, None)
        return said

    def lose(self, worker: int) -> bool:
        """It is gone, or as good as gone; what it has sent and nobody has read is dropped. False if it was known."""
        if worker in self._gone:
            return False
        self._gone.add(worker)
        self.there.discard(worker)
        self._awaited.pop(worker, None)
        with self._changed:
            self._unread.pop(worker, None)
        self.losses.append(Loss(worker + 1, self.version + 1, [worker]))
        return True

    def close(self, worker: int) -> None:
        """Its line: it has sent what cannot be read."""
        line = self._lines.pop(worker, None)
        if line is not None:
            line.close()

    def silent(self, seconds: float) -> list[int]:
        """The server has waited for so many more seconds; who has been waited for longer than launch.timeout: workers
        that have an order and have not spoken, or have not come."""
        for n in self._awaited:
            self._awaited[n] += seconds
        return [n for n, waited in self._awaited.items() if waited > self.timeout.total_seconds()]

    @property
    def world_size(self) -> int:
        return 1 + self.workers

    def request_save(self) -> None:
        """Each worker keeps the state of its codec after its next message."""
        self._unsaved = set(range(self.workers))

    def end(self) -> None:
        """Tells all that it is over, and waits until they have heard so, or for a while."""
        if self._door is None:
            return
        begun, awaited = time.monotonic(), set(range(self.workers)) - self._gone
        while awaited - self._lines.keys() and time.monotonic() < begun + COMING:
            time.sleep(LOOK)
        self._door.close()
        self._door = None
        here = set(self._lines)
        for n in here:
            self._send(n, [STOP, 0, 0, 0, 0, 0], NOTHING)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= awaited & here, max(0.0, begun + PATIENCE - time.monotonic()))

    def _send(self, worker: int, head: list[int], body: Tensor) -> None:
        with suppress(KeyError):  # whoever listens to it notices, or has noticed
            self._lines[worker].send(head, body)

    def _attend(self, n: int, line: Channel) -> None:
        """Listens to worker n, which has come, until it is gone or another takes its place."""
        if n in self._lines:
            self.close(n)
            self._tell(Said(n, LOST))
        self._lines[n] = line
        self._left.discard(n)
        self._tell(Said(n, JOINED))
        try:
            while True:
                (kind, version, done, life, busy, bad), body = line.listen()
                if kind == FAREWELL:
                    break
                self._put(Said(n, kind, version, done, life, busy, bad, body, time.monotonic()))
        except (RuntimeError, TimeoutError):
            if self._lines.get(n) is not line:
                return  # it was closed here, and that is known
            self._lines.pop(n, None)
            self._tell(Said(n, LOST))
        with self._changed:
            self._left.add(n)
            self._changed.notify_all()

    def _tell(self, said: Said) -> None:
        with self._changed:
            self._events.append(said)
            self._changed.notify()

    def _put(self, said: Said) -> None:
        with self._changed:
            unread = self._unread.get(said.worker)
            self._unread[said.worker] = said if unread is None else said._replace(skipped=unread.skipped + 1)
            self._changed.notify()
