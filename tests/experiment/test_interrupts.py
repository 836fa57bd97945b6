"""Ctrl-C and SIGTERM: the first is noticed between two rounds, the second is not waited for."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
import warm
from conftest import environment

from commexp.experiment.interrupts import Interrupts

BUSY = """
import hashlib
from commexp.experiment.interrupts import Interrupts
with Interrupts():
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha512", b"", b"", 10**9)  # one call, of many minutes
"""


@pytest.mark.parametrize(("second", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_one_ends_the_process_at_once(second: signal.Signals, status: int) -> None:
    """Even one whose main thread is in the middle of a long computation."""
    started = warm.Popen(
        [sys.executable, "-c", BUSY], env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "begun\n"
    started.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0.3)
    started.send_signal(second)
    assert started.wait(10) == status
    assert started.communicate() == ("", "")


def test_the_first_is_only_noticed_and_what_was_before_comes_back() -> None:
    handlers, threads = signal.getsignal(signal.SIGTERM), threading.active_count()
    with Interrupts() as interrupts:
        assert not interrupts.seen
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.seen
    assert signal.getsignal(signal.SIGTERM) is handlers
    assert signal.set_wakeup_fd(-1) == -1
    for thread in threading.enumerate():
        if thread.name.endswith("(_watch)"):
            thread.join(5)
    assert threading.active_count() == threads
