"""The two ends of a run whose server does not wait for workers: the first process serves, the others work.

Every other process has a channel of its own to the server (channel.py), with a thread that receives at either end.

    server  -> worker     a WorkItem (algorithms/base.py): the numbers of its head, x as the body
    worker  -> server     a PackedUpdate: the numbers of its head, frames (comm/frames.py) as the body

Neither end keeps a queue: a newer item replaces one that the worker has not taken yet, and a newer update of the same
process replaces one that the server has not read yet. A process that joins begins a new generation; updates of an
earlier one are ignored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from torch import Tensor

from commexp.algorithms.base import WorkItem
from commexp.comm.links import Links, Loss, LostProcessError, lost_how, lost_server
from commexp.server.channel import NOTHING, NUMBERS, Channel, Door, connect

log = logging.getLogger("commexp")

MESSAGE, FAULT, FAREWELL, JOINED, LOST = range(5)  # kinds of updates
STOP = -1  # the version of the item that ends a worker
KEEP = -2  # of one that has no work in it, but asks for its state to be kept
LOOK = 0.5  # seconds between two looks at who is late
JOINING = 10.0  # seconds in which the end of a run waits for processes that have not joined yet ...
PATIENCE = 30.0  # ... and for those that have joined to leave
LONGER = 3  # a worker waits so many times launch.timeout for a server that shows signs of life alone


class PackedUpdate(NamedTuple):
    """What the server receives of process ``rank``: a MESSAGE, whose frames are ``body``; a FAULT, a text about a
    gradient that is not finite; or the news that the process has JOINED or is LOST.

    ``version``: of the item on which it worked. ``local_steps``: of its worker, in all. ``busy``: microseconds of work
    in this generation. ``bad``: gradients that were not finite since the last update that was read. ``at``: when it
    came, time.monotonic(). ``overwritten``: unread updates that it replaced.
    """

    rank: int
    kind: int
    version: int = 0
    local_steps: int = 0
    generation: int = 0
    busy: int = 0
    bad: int = 0
    body: Tensor = NOTHING
    at: float = 0.0
    overwritten: int = 0

    @property
    def text(self) -> str:
        """Of a FAULT."""
        return bytes(self.body.tolist()).decode(errors="replace")


class ServerEndpoint(Links):
    """The server's end, in the first process.

    Of asynchronous methods: worker n lives in process n + 1 and may join late; the server takes part in no collectives,
    rank 0 of 1. Of the others: the ``workers`` are spread evenly over all processes, the first one included, and all
    join before the first round. ``rejoins``: a process that was lost may come back; else it is lost for ever.

    A process is late when it has been silent for ``timeout`` while the server waited for it: ``late`` alone says so. A
    process that is late, or whose channel is closed, is lost. ``joined``, ``lost``: ranks. ``version``: of the newest
    item. ``port``: where processes connect, 0 for any that is free. ``counted``: of methods with rounds, by rank, one
    more than the last round in which messages of the process have counted.
    """

    def __init__(
        self,
        world_size: int,
        timeout: timedelta,
        workers: int,
        asynchronous: bool,
        port: int = 0,
        rejoins: bool = False,
    ) -> None:
        self.server, self.timeout, self.port = self, timeout, port
        self.processes, self.workers_wait = 1 if asynchronous else world_size, not asynchronous
        self.ranks, self._here = range(1, world_size), 1 if asynchronous else workers // world_size
        self.asynchronous, self.rejoins = asynchronous, rejoins
        self.counted: dict[int, int] = {}
        self.losses: list[Loss] = []
        self.joined: set[int] = set()
        self.lost: set[int] = set()
        self.version = 0
        self.generations = dict.fromkeys(self.ranks, 0)
        self._asked = dict.fromkeys(self.ranks, 0)  # the version of the newest item of each
        self._waited: dict[int, float] = {}  # seconds, of those that have an item and are silent, or have not joined
        self._alone, self._looked = 0.0, 0.0  # seconds without any process; when ``late`` was asked last
        self._unsaved: set[int] = set()
        self._spoken: dict[int, float] = {}  # when each was sent something last, time.monotonic()
        self._changed = threading.Condition()
        self._unread: dict[int, PackedUpdate] = {}
        self._events: deque[PackedUpdate] = deque()
        self._channels: dict[int, Channel] = {}
        self._door: Door | None = None
        self._left: set[int] = set()  # ranks whose channel has come to its end

    @property
    def world_size(self) -> int:
        return 1 + len(self.ranks)

    @property
    def versions(self) -> dict[int, int]:
        return {rank: self.counted[rank] for rank in sorted(self.joined) if rank in self.counted}

    def workers_of(self, rank: int) -> Sequence[int]:
        """The workers that a process hosts."""
        first = rank - 1 if self.asynchronous else rank * self._here
        return range(first, first + self._here)

    def listen(self) -> None:
        """Opens the door. Of methods that are not asynchronous, waits for all processes; those that do not come are
        lost."""
        self._waited, self._looked = dict.fromkeys(self.ranks, 0.0), time.monotonic()
        self._door = Door(self.port, self.timeout, self.ranks, self._attend)
        while not self.asynchronous and len(self.joined) + len(self.lost) < len(self.ranks):
            self.next(LOOK)

    def send(self, rank: int, item: WorkItem) -> None:
        """Gives a process that has joined its next work, and does not wait. ``item.body``: uint8."""
        self.version = self._asked[rank] = item.version
        save = rank in self._unsaved
        self._unsaved.discard(rank)
        self._waited[rank] = 0.0
        numbers = [item.version, item.messages_received, item.local_steps, item.kind, self.generations[rank], int(save)]
        if self._post(rank, numbers, item.body):
            self._unsaved.add(rank)  # the item that was to say so has been replaced

    def next(self, seconds: float, waited_for: Collection[int] | None = None) -> PackedUpdate | None:
        """What is to be dealt with next, within so many seconds: who has joined or is lost; else the update that has
        been there for longest. ``waited_for``: the processes of which some may be late, else all. Raises RuntimeError
        where every process is lost and none has come back within ``timeout``."""
        end = time.monotonic() + seconds
        while True:
            update = self._take(max(0.0, min(LOOK, end - time.monotonic())))
            now = time.monotonic()
            if now - self._looked > LOOK:  # time in which the server did something else does not count
                seconds, self._looked = min(now - self._looked, 2 * LOOK), now
                self._events.extend(PackedUpdate(rank, LOST) for rank in self.late(seconds, waited_for))
                self._alone = 0.0 if self.joined or not self.asynchronous else self._alone + seconds
                if self._alone > self.timeout.total_seconds():
                    raise RuntimeError("every worker is lost, and none came back in launch.timeout")
            if update is not None or now >= end:
                return update

    def late(self, seconds: float, waited_for: Collection[int] | None = None) -> list[int]:
        """The server has waited for so many more seconds; which of the processes ``waited_for`` are late by now."""
        for rank in self._waited:
            if waited_for is None or rank in waited_for:
                self._waited[rank] += seconds
        return [rank for rank, waited in self._waited.items() if waited > self.timeout.total_seconds()]

    def lose(self, rank: int) -> bool:
        """Marks a process as lost and drops its unread update. False if it was lost already."""
        if rank in self.lost:
            return False
        self.lost.add(rank)
        self.joined.discard(rank)
        self._waited.pop(rank, None)
        with self._changed:
            self._unread.pop(rank, None)
        self.losses.append(Loss(rank, self.version + 1, self.workers_of(rank)))
        return True

    def reject(self, rank: int, error: Exception | str) -> None:
        """The process has sent a message that cannot be read: it loses its channel, and is lost."""
        log.warning("rank %d: a message that cannot be read: %s", rank, error)
        self._close(rank)
        self._tell(PackedUpdate(rank, LOST))

    def request_save(self) -> None:
        """Each worker keeps its own state, an asynchronous one after its next message, the others before it; those that
        may not be called for long, at once."""
        self._unsaved = set(self.ranks)
        if self.rejoins and not self.asynchronous:
            for rank in self.joined:
                self._post(rank, [KEEP, self.counted.get(rank, 0), 0, 0, self.generations[rank], 1], NOTHING)

    def let_sleep(self, rank: int) -> None:
        """The process has no work; it hears so before it takes the server for one that hangs."""
        if time.monotonic() - self._spoken.get(rank, 0.0) > self.timeout.total_seconds():
            numbers = [KEEP, self.counted.get(rank, 0), 0, 0, self.generations[rank], int(rank in self._unsaved)]
            self._post(rank, numbers, NOTHING)

    def end(self) -> None:
        """Tells all processes that the run is over, and waits for a while until they have left."""
        if self._door is None:
            return
        begun, awaited = time.monotonic(), set(self.ranks) - self.lost
        while awaited - self._channels.keys() and time.monotonic() < begun + JOINING:
            time.sleep(0.1)
        self._door.close()
        self._door = None
        here = set(self._channels)
        for rank in here:
            stop = [STOP, self.counted.get(rank, 0), 0, 0, 0]
            if self._post(rank, [*stop, int(rank in self._unsaved)], NOTHING):
                self._post(rank, [*stop, 1], NOTHING)
        with self._changed:
            until = max(0.0, begun + PATIENCE - time.monotonic())
            self._changed.wait_for(lambda: self._left >= awaited & here, until)

    def _take(self, seconds: float) -> PackedUpdate | None:
        """The next event or update within so many seconds; None where there is none that counts."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._unread, seconds)
            if self._events:
                update = self._events.popleft()
            elif self._unread:
                update = self._unread.pop(next(iter(self._unread)))
            else:
                return None
        rank = update.rank
        if update.kind == LOST:
            return update if self.lose(rank) else None
        if update.kind == JOINED or rank not in self.joined:  # or it was late, and speaks again
            if rank in self.lost and not self.rejoins:
                return None
            if rank in self.lost:
                self.losses.append(Loss(rank, self.version + 1, self.workers_of(rank), back=True))
            self.generations[rank] += 1
            self.joined.add(rank)
            self.lost.discard(rank)
            self._waited.pop(rank, None)
            return PackedUpdate(rank, JOINED)
        if update.generation != self.generations[rank]:
            return None
        if update.version == self._asked[rank]:
            self._waited.pop(rank, None)
        elif rank in self._waited:
            self._waited[rank] = 0.0  # it still has a newer item
        return update

    def _post(self, rank: int, numbers: list[int], body: Tensor) -> bool:
        """Whether this replaced an item that was to ask for a save."""
        self._spoken[rank] = time.monotonic()
        with suppress(KeyError):  # its thread has noticed that the channel is closed
            replaced = self._channels[rank].post(numbers, body)
            return replaced is not None and bool(replaced[-1])
        return False

    def _close(self, rank: int) -> None:
        channel = self._channels.pop(rank, None)
        if channel is not None:
            channel.close()

    def _attend(self, rank: int, channel: Channel) -> None:
        """Receives from a process that has connected, until it is gone or another one takes its place."""
        if rank in self._channels:
            if not self.rejoins:
                return
            self._close(rank)
            self._tell(PackedUpdate(rank, LOST))
        self._channels[rank] = channel
        self._left.discard(rank)
        self._tell(PackedUpdate(rank, JOINED))
        try:
            while True:
                (kind, version, local_steps, generation, busy, bad), body = channel.receive()
                if kind not in (MESSAGE, FAULT):  # it takes leave
                    break
                now = time.monotonic()
                self._put(PackedUpdate(rank, kind, version, local_steps, generation, busy, bad, body, now))
        except (RuntimeError, TimeoutError):
            if self._channels.get(rank) is not channel:
                return  # this end has closed it
            self._channels.pop(rank, None)
            self._tell(PackedUpdate(rank, LOST))
        with self._changed:
            self._left.add(rank)
            self._changed.notify_all()

    def _tell(self, event: PackedUpdate) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify()

    def _put(self, update: PackedUpdate) -> None:
        with self._changed:
            unread = self._unread.get(update.rank)
            if unread is not None:
                update = update._replace(overwritten=unread.overwritten + 1, bad=unread.bad + update.bad)
            self._unread[update.rank] = update
            self._changed.notify()


class WorkerEndpoint(Links):
    """The end of process ``world_rank`` = 1, 2, ... It hosts worker ``world_rank`` - 1 of an asynchronous method, which
    takes part in no collectives, or its share of the workers of another method."""

    def __init__(self, world_rank: int, world_size: int, timeout: timedelta, asynchronous: bool) -> None:
        self.worker, self.timeout, self._rank, self._size = self, timeout, world_rank, world_size
        if not asynchronous:
            self.rank, self.processes = world_rank, world_size
        self._changed = threading.Condition()
        self._newest: WorkItem | None = None
        self.farewell: WorkItem | None = None  # the server's last item, which has no work in it
        self._stopped = False
        self._gone = ""  # how the server was lost

    @property
    def world_rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._size

    @property
    def over(self) -> bool:
        """Whether the run is over, or the server is gone."""
        return self._stopped or bool(self._gone)

    def connect(self) -> None:
        """Raises LostProcessError if the server is gone."""
        try:
            self._channel = connect(self._rank, self.timeout)
        except (RuntimeError, TimeoutError) as error:
            raise self._lost("gone") from error
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def next(self, seconds: float | None = None) -> WorkItem | None:
        """The newest item, once there is one that has not been taken; None after so many seconds, or at the end.
        Raises LostProcessError if the server is gone, is silent for launch.timeout, or sends nothing but signs of life
        for LONGER times that: it may wait for a third process."""
        patience = LONGER * self.timeout.total_seconds()
        with self._changed:
            self._changed.wait_for(self._is_news, patience if seconds is None else seconds)
            if self._gone:
                raise self._lost(self._gone)
            item, self._newest = self._newest, None
            if item is None and seconds is None and not self._stopped:
                text = f"rank {self._rank}: no word from rank 0 in {LONGER} times launch.timeout"
                raise LostProcessError(text, "silent")
            return item

    def sleep(self, seconds: float) -> None:
        """Until so much time has passed, or it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.over, max(0.0, seconds))

    def superseded(self, seconds: float) -> bool:
        """Waits so long, or until there is a newer item, or it is over: True then."""
        with self._changed:
            return self._changed.wait_for(self._is_news, max(0.0, seconds))

    def send(
        self, kind: int, item: WorkItem, local_steps: int = 0, busy: float = 0.0, bad: int = 0, body: Tensor = NOTHING
    ) -> None:
        """What came of the work on ``item``, see PackedUpdate; ``busy`` in seconds. Returns once it is on its way;
        raises LostProcessError if the server is gone."""
        self._send([kind, item.version, local_steps, item.generation, int(1e6 * busy), bad], body)

    def leave(self) -> None:
        """Tells the server that this process has seen the end. Raises LostProcessError if the server is gone or silent:
        what is sent to a process that hangs arrives nowhere, and is no error."""
        if self._gone:
            raise self._lost(self._gone)
        self._send([FAREWELL, *[0] * (NUMBERS - 1)], NOTHING)
        self._thread.join(1.0)  # a thread that ends during the interpreter's exit may crash it

    def _is_news(self) -> bool:
        return self._newest is not None or self.over

    def _send(self, numbers: list[int], body: Tensor) -> None:
        try:
            self._channel.send(numbers, body)
        except (RuntimeError, TimeoutError) as error:
            raise self._lost(self._gone or lost_how(error)) from error

    def _lost(self, how: str) -> LostProcessError:
        return lost_server(self._rank, how, self.timeout)

    def _receive(self) -> None:
        try:
            while not self._stopped:
                (version, received, local_steps, kind, generation, save), body = self._channel.receive()
                item = WorkItem(body, version, received, local_steps, kind, generation, bool(save))
                with self._changed:
                    self._stopped = version == STOP
                    if self._newest is not None:
                        item = item._replace(save=item.save or self._newest.save)
                    self._newest, self.farewell = (None, item) if self._stopped else (item, None)
                    self._changed.notify_all()
        except (RuntimeError, TimeoutError) as error:
            with self._changed:
                self._gone = lost_how(error)
                self._changed.notify_all()


def endpoint(
    rank: int,
    world_size: int,
    timeout: float,
    workers: int,
    asynchronous: bool,
    port: int = 0,
    rejoins: bool = False,
) -> ServerEndpoint | WorkerEndpoint:
    """This process's end; the server listens at ``port``. ``timeout``: in seconds."""
    patience = timedelta(seconds=timeout)
    if rank == 0:
        return ServerEndpoint(world_size, patience, workers, asynchronous, port, rejoins)
    return WorkerEndpoint(rank, world_size, patience, asynchronous)
