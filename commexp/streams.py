"""Whoever reads what we print may leave before its end, as ``head`` does, or may never have been there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


def complain(text: str) -> None:
    """A mistake, or how a run has failed, in one line."""
    print(f"commexp: error: {' '.join(text.splitlines())}", file=sys.stderr, flush=True)


class _Lenient:
    """A stream that forgets what nobody reads any more."""

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
    """For a console script: a run goes on when nobody reads its lines any more, and ``--help | head`` is no error."""
    usual = sys.stdout, sys.stderr
    nowhere = [open(os.devnull, "w", encoding="utf-8") for stream in usual if stream is None]  # noqa: SIM115
    lenient = [_Lenient(stream or nowhere[0]) for stream in usual]  # None: it was closed before we began
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in lenient)
    try:
        yield
    finally:
        for stream in lenient:
            stream.flush()
        for file in nowhere:
            file.close()
        sys.stdout, sys.stderr = usual
