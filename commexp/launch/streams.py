"""The standard streams of a program. The caller may have closed them (``commexp ... 2>&-``), and their reader may leave
before the end, as ``head`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO, cast

from commexp.report.terminal import write_any_letter


def open_closed() -> None:
    """Opens closed standard streams on the null device. Otherwise the next file that is opened would get their file
    descriptor, and the program would print into it. Only for a program of our own, not for a host's process."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by number: the lowest free one is given
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  (for as long as the process lives)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def complain(text: str) -> None:
    """A mistake, or how a run has failed, in one line."""
    print(f"commexp: error: {' '.join(text.splitlines())}", file=sys.stderr, flush=True)


def full_error() -> bool:
    """Whether an unforeseen error is shown with its traceback: HYDRA_FULL_ERROR=1."""
    return os.environ.get("COMMEXP_FULL_ERROR") == "1"


def leave(status: int) -> NoReturn:
    """Ends one of a run's several processes, however its run has ended. An ordinary exit would tear down torch's
    communication threads, which may still be at work, and then aborts at times ("terminate called ...")."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


class _Lenient:
    """A stream that drops its output once its reader has left."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        """What is still in the buffer goes nowhere, also when Python empties it at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def lenient_streams() -> Iterator[None]:
    """For a console script: a run continues when the reader of its output leaves, and ``--help | head`` is no error."""
    open_closed()
    usual = sys.stdout, sys.stderr
    for stream in usual:
        write_any_letter(stream)
    lenient = [_Lenient(stream) for stream in usual]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in lenient)
    try:
        yield
    finally:
        for stream in lenient:
            stream.flush()
        sys.stdout, sys.stderr = usual
