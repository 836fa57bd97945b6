"""Standard streams that whoever started this process has closed (``commexp ... 2>&-``)."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Opens them on nothing: else the next file that is opened gets their number, and is written what was meant for
    them. Of no use to whoever has not been started as a program."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by number: the lowest free one is given
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  (for as long as the process lives)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
