"""A worker's end of its line to the server, see hub.py."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import NamedTuple

from torch import Tensor

from commexp.comm.links import Links, LostProcessError, lost_how, lost_server
from commexp.server.hub import ANSWER, FAREWELL, ORDER, STOP
from commexp.server.lines import NOTHING, enter

LONGER = 3  # than the server waits for a worker, a worker waits for the server


class Given(NamedTuple):
    """An order: see algorithms.base.WorkItem; ``body`` as bytes, uint8. ``life``: this worker's, as the server counts.
    ``save``: whether it is to keep what its codec remembers."""

    version: int
    heard: int
    done: int
    kind: int
    life: int
    save: bool
    body: Tensor


class Spoke(Links):
    """The process of worker ``worker``. Nobody but the server is there for it."""

    def __init__(self, worker: int, timeout: timedelta) -> None:
        self.worker, self.timeout = worker, timeout
        self._changed = threading.Condition()
        self._newest: Given | None = None
        self._stopped = False
        self._gone = ""  # how the server was lost

    def listen(self) -> None:
        """Meets the server. Raises LostProcessError if that is gone."""
        try:
            self._line = enter(self.worker, self.timeout, ANSWER, ORDER)
        except (RuntimeError, TimeoutError) as error:
            raise self._lost("gone") from error
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def next(self, seconds: float | None = None) -> Given | None:
        """The newest order, once there is one that has not been given out; None after so many seconds, or at the end.
        Raises LostProcessError if the server is gone or silent for launch.timeout, or has sent nothing but signs of
        life for several times that."""
        patience = LONGER * self.timeout.total_seconds()
        with self._changed:
            self._changed.wait_for(self._is_news, patience if seconds is None else seconds)
            if self._gone:
                raise self._lost(self._gone)
            found, self._newest = self._newest, None
            if found is None and seconds is None and not self._stopped:
                text = f"rank {self.worker + 1}: no word from rank 0 in {LONGER} times launch.timeout"
                raise LostProcessError(text, "silent")
            return found

    def sleep(self, seconds: float) -> None:
        """Until so much time has passed, or it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.over, max(0.0, seconds))

    @property
    def over(self) -> bool:
        return self._stopped or bool(self._gone)

    def say(self, kind: int, given: Given, done: int, busy: float, bad: int, body: Tensor = NOTHING) -> None:
        """See hub.Said; ``busy`` in seconds."""
        self._tell([kind, given.version, done, given.life, int(1e6 * busy), bad], body)

    def end(self) -> None:
        """Takes leave. Raises LostProcessError where it is the server that has gone."""
        self._tell([FAREWELL, 0, 0, 0, 0, 0], NOTHING)
        self._thread.join(1.0)  # one that ends while the interpreter does would end it badly

    def _is_news(self) -> bool:
        return self._newest is not None or self.over

    def _tell(self, head: list[int], body: Tensor) -> None:
        try:
            self._line.tell(head, body)
        except (RuntimeError, TimeoutError) as error:
            raise self._lost(self._gone or lost_how(error)) from error

    def _lost(self, how: str) -> LostProcessError:
        return lost_server(self.worker + 1, how, self.timeout)

    def _listen(self) -> None:
        try:
            while not self._stopped:
                (version, heard, done, kind, life, save), body = self._line.listen()
                with self._changed:
                    self._stopped = version == STOP
                    self._newest = None if self._stopped else Given(version, heard, done, kind, life, bool(save), body)
                    self._changed.notify()
        except (RuntimeError, TimeoutError) as error:
            with self._changed:
                self._gone = lost_how(error)
                self._changed.notify()
