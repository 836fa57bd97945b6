"""Ctrl-C and SIGTERM, noticed between two rounds."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While active, the first SIGINT or SIGTERM only sets ``seen``; a second one ends this process at once, with the
    exit status that a shell gives to one that the signal kills: 130 or 143."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                self._before[number] = signal.signal(number, self._notice)
            told, self._tell = os.pipe()
            os.set_blocking(self._tell, False)
            self._woken = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
            threading.Thread(target=_watch, args=(told,), daemon=True).start()
        return self

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.seen = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before:
            signal.set_wakeup_fd(self._woken)
            os.close(self._tell)
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _watch(told: int) -> None:
    """Ends this process at the second signal, whatever its main thread is at: Python calls handlers there, once what
    that is computing is done. ``told``: where the numbers of signals arrive."""
    seen = 0
    while numbers := os.read(told, 64):
        for number in numbers:
            seen += number in NUMBERS
            if seen > 1:
                os._exit(128 + number)
    os.close(told)
