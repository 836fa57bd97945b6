"""Processes that nobody waits for: the first one calls, the others answer when they can, and may die.

The first process sends an order (round, x) to each of the others and goes on when it likes. A process works on the
newest order that it has; each order it gets it acknowledges once, with its message or, where a newer one has come
before that was ready, with an empty answer. Each process has a line of its own to the first (lines.py), each side with
a thread that listens to the other, so that losing one process is noticed at once and concerns nobody else.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from datetime import timedelta
from typing import NamedTuple

from torch import Tensor

from commexp.comm.links import Links, Loss, LostProcessError, Processes, lost_how, lost_server
from commexp.server.lines import NOTHING, Channel, Door, as_bytes, enter

AHEAD = 8  # orders that a process may leave unacknowledged before it gets no more
PATIENCE = 30.0  # seconds in which the others are to end
LONGER = 3  # than it waits for others, others wait for the first process
STOP = -1  # in the place of a round
ORDER, ANSWER = 1, 3  # numbers in the heads of messages


class Heard(NamedTuple):
    """What process ``rank`` says of round ``number``: ``body`` are its message's bytes, uint8; empty where it has none.
    ``bad``: gradients that were not finite since it spoke last; ``fault``: whether the body is a text about one.
    ``lost``: the process is gone. The last word of each, once it is over, is of round STOP."""

    rank: int
    number: int = STOP
    bad: int = 0
    fault: bool = False
    body: Tensor = NOTHING
    lost: bool = False


class Coordinator(Links):
    """The first process. To whoever asks for its links it is alone: what must be agreed upon it decides.

    ``lost``: which processes are gone, and in which round that was noticed. ``workers``: in all.
    ``port``: where they come, 0 for any that is free.
    """

    def __init__(self, links: Processes, workers: int, port: int = 0) -> None:
        self.here = workers // links.processes
        self.processes, self.timeout, self.port = links.processes, links.timeout.total_seconds(), port
        self._lines: dict[int, Channel] = {}
        self._came = threading.Condition()
        self.lost: dict[int, int] = {}
        self.losses: list[Loss] = []
        self.round, self._over = 0, False
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._sent: dict[int, int] = defaultdict(int)  # orders that have not been acknowledged

    def listen(self) -> None:
        """To be called once it is certain that there will be calls: waits for the others, or for launch.timeout."""
        patience, others = timedelta(seconds=self.timeout), range(1, self.processes)
        self._door = Door(self.port, patience, ORDER, ANSWER, others, self._listen)
        with self._came:
            self._came.wait_for(lambda: len(self._lines) == len(others), self.timeout)
        self._door.close()  # nobody comes later
        for rank in set(others) - self._lines.keys():
            self.lose(rank)

    @property
    def living(self) -> list[int]:
        return [rank for rank in range(1, self.processes) if rank not in self.lost]

    def lose(self, rank: int) -> None:
        """It is gone, or as good as gone: it has not answered in launch.timeout."""
        if rank not in self.lost:
            self.lost[rank] = self.round
            self.losses.append(Loss(rank, self.round + 1, range(rank * self.here, (rank + 1) * self.here)))
            self._sent.pop(rank, None)

    def order(self, number: int, x: Tensor | None = None) -> None:
        """Round ``number`` at x [J], to all living; without x the end."""
        self.round = max(number, self.round)
        body = NOTHING if x is None else as_bytes(x)
        for rank in self.living:
            if self._sent[rank] < AHEAD or x is None:
                self._sent[rank] += 1
                self._lines[rank].send([number], body)

    def hear(self, seconds: float) -> Heard | None:
        """The next word of any process, within so many seconds."""
        try:
            heard = self._heard.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        if heard.lost:
            self.lose(heard.rank)
        elif self._sent[heard.rank]:
            self._sent[heard.rank] -= 1
        return heard

    def close(self, rank: int) -> None:
        """Its line: it has sent what cannot be read."""
        self._lines[rank].close()

    def end(self) -> None:
        """Tells all living that it is over, and waits until they have heard so, or for a while."""
        if self._over:
            return
        self._over = True
        self.order(STOP)
        left, until = set[int](), time.monotonic() + PATIENCE
        while not left.issuperset(self.living) and time.monotonic() < until:
            heard = self.hear(until - time.monotonic())
            if heard is not None and heard.number == STOP:
                left.add(heard.rank)

    def _listen(self, rank: int, line: Channel) -> None:
        with self._came:
            if rank in self._lines:
                return  # it is there already
            self._lines[rank] = line
            self._came.notify()
        try:
            number = 0
            while number != STOP:
                (number, bad, fault), body = line.listen()
                self._heard.put(Heard(rank, number, bad, bool(fault), body))
        except (RuntimeError, TimeoutError):
            self._heard.put(Heard(rank, lost=True))


class Remote(Links):
    """Any other process."""

    def __init__(self, links: Processes) -> None:
        self.rank, self.processes, self.timeout = links.rank, links.processes, links.timeout
        self._orders: queue.SimpleQueue[tuple[int, Tensor] | None] = queue.SimpleQueue()
        self._next: tuple[int, Tensor] | None = None
        self._how = "gone"  # the first process, if it is

    def listen(self) -> None:
        """To be called once it is certain that there will be calls: meets the first process."""
        try:
            self._line = enter(self.rank, self.timeout, ANSWER, ORDER)
        except (RuntimeError, TimeoutError) as error:
            raise self._gone() from error
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def next(self) -> tuple[int, Tensor] | None:
        """The newest order: round and x as bytes, uint8; None at the end. Raises LostProcessError if the first process
        is gone or silent for launch.timeout, or sends nothing but signs of life for several times that, in which it may
        wait for a third one."""
        if self._next is None and not self.wait(LONGER * self.timeout.total_seconds()):
            text = f"rank {self.rank}: no word from rank 0 in {LONGER} times launch.timeout"
            raise LostProcessError(text, "silent")
        while self.wait(0.0):
            pass
        order, self._next = self._next, None
        assert order is not None
        if order[0] == STOP:
            self.answer(STOP)
            self._thread.join(1.0)
            return None
        return order

    def wait(self, seconds: float) -> bool:
        """Waits so long, or until a newer order has come: True then. One before it that nobody has taken is
        acknowledged."""
        try:
            newer = self._orders.get(timeout=seconds)
        except queue.Empty:
            return False
        if newer is None:
            raise self._gone()
        if self._next is not None:
            self.answer(self._next[0])
        self._next = newer
        return True

    def answer(self, number: int, body: Tensor = NOTHING, bad: int = 0, fault: bool = False) -> None:
        """What this process has to say of round ``number``, see Heard."""
        try:
            self._line.tell([number, bad, int(fault)], body)
        except (RuntimeError, TimeoutError) as error:
            self._how = lost_how(error)
            raise self._gone() from error

    def _gone(self) -> LostProcessError:
        return lost_server(self.rank, self._how, self.timeout)

    def _listen(self) -> None:
        number = 0
        try:
            while number != STOP:
                (number,), body = self._line.listen()
                self._orders.put((number, body))
        except (RuntimeError, TimeoutError) as error:
            self._how = lost_how(error)
            self._orders.put(None)
