"""A server and workers that have a process each: the first process serves, process n + 1 is worker n.

Every worker has a line of its own to the server, with a thread that listens at either end. A message stays in its
worker's place until the server reads it, and a newer one of the same worker takes that place. A worker that is lost may
come back: in a new process on a new line, or because it only was stopped for long. Each time it begins a new life, and
what it has sent in a former one is ignored.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor

from commexp.comm.lines import NOTHING, Line, group_of_two, meeting_place, name_of
from commexp.comm.links import Links, Loss, Processes

MESSAGE, FAULT, FAREWELL, JOINED, LOST = range(5)
ORDER, ANSWER = 6, 6  # numbers in the heads of messages
STOP = -1  # in the place of a version
LOOK = 0.1  # seconds between two looks at who has come back
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
    """The server's process. To whoever asks for its links it is alone. ``losses``: so far. ``there``: the workers that
    have come and are not lost."""

    def __init__(self, links: Processes) -> None:
        self.workers, self.timeout = links.processes - 1, links.timeout
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
        self._lines: dict[int, Line] = {}
        self._sent: list[list[tuple[int, object]]] = [[] for _ in range(self.workers)]  # kept, with their versions, ...
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def listen(self) -> None:
        """To be called once it is certain that there will be orders."""
        for n in range(self.workers):
            self._awaited[n] = 0.0
            self._threads.append(threading.Thread(target=self._attend, args=(n,), daemon=True))
            self._threads[-1].start()

    def send(self, worker: int, version: int, heard: int, done: int, kind: int, body: Tensor) -> None:
        """An order to a worker that is there; see algorithms.Order."""
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
                self.losses.append(Loss(n + 1, self.version + 1, back=True))
            self.lives[n] += 1
            self.there.add(n)
            self._gone.discard(n)
            self._awaited.pop(n, None)
            return Said(n, JOINED)
        if said.life != self.lives[n]:
            return None
        self._sent[n] = [sent for sent in self._sent[n] if sent[0] > said.version]  # ... until they have arrived
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
        self.losses.append(Loss(worker + 1, self.version + 1))
        return True

    def silent(self, seconds: float) -> list[int]:
        """The server has waited for so many more seconds; who has been waited for longer than launch.timeout: workers
        that have an order and have not spoken, or have not come."""
        for n in self._awaited:
            self._awaited[n] += seconds
        return [n for n, waited in self._awaited.items() if waited > self.timeout.total_seconds()]

    def save(self) -> None:
        """Workers are to keep what their codecs remember, each after its next message."""
        self._unsaved = set(range(self.workers))

    def end(self) -> None:
        """Tells all that it is over, and waits until they have heard so, or for a while."""
        if self._over.is_set():
            return
        begun, awaited = time.monotonic(), set(range(self.workers)) - self._gone
        while awaited - self._lines.keys() and time.monotonic() < begun + COMING:
            time.sleep(LOOK)
        self._over.set()
        for n in list(self._lines):
            self._send(n, [STOP, 0, 0, 0, 0, 0], NOTHING)
        for n, thread in enumerate(self._threads):
            # one that ends while the interpreter does would end it badly
            thread.join(max(0.0, begun + PATIENCE - time.monotonic()) if n in awaited else 2 * LOOK)

    def _send(self, worker: int, head: list[int], body: Tensor) -> None:
        with suppress(RuntimeError, KeyError):  # whoever listens to it notices, or has noticed
            self._sent[worker].append((head[0], self._lines[worker].send(head, body)))

    def _attend(self, n: int) -> None:
        """Waits for worker n to come, and listens to it; and again when it is gone."""
        store, lines = meeting_place(self.timeout), 0
        while not self._over.is_set():
            try:
                come = store.add(name_of(n), 0)
                if come == lines:
                    self._over.wait(LOOK)
                    continue
                lines = come
                line = Line(group_of_two(store, f"{name_of(n)}/{lines}", 0, self.timeout), 1, ORDER, ANSWER)
            except (RuntimeError, dist.DistError):
                continue  # gone before it was there
            self._lines[n] = line
            self._tell(Said(n, JOINED))
            try:
                while True:
                    (kind, version, done, life, busy, bad), body = line.listen()
                    if kind == FAREWELL:
                        return
                    self._put(Said(n, kind, version, done, life, busy, bad, body, time.monotonic()))
            except RuntimeError:
                self._lines.pop(n, None)
                self._tell(Said(n, LOST))

    def _tell(self, said: Said) -> None:
        with self._changed:
            self._events.append(said)
            self._changed.notify()

    def _put(self, said: Said) -> None:
        with self._changed:
            unread = self._unread.get(said.worker)
            self._unread[said.worker] = said if unread is None else said._replace(skipped=unread.skipped + 1)
            self._changed.notify()
