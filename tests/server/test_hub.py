"""A server and its workers, over real lines, all in one process: who is heard, and who is not."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import cast

import pytest
import torch
import warm
from conftest import environment
from torch._C._distributed_c10d import TCPStore

from commexp.comm import LostProcessError, Processes, secret
from commexp.server.hub import FAULT, JOINED, LOST, MESSAGE, Hub, Said
from commexp.server.lines import _mac, meeting_place
from commexp.server.spoke import Given, Spoke

WAIT = timedelta(seconds=1)
SECRET = "what only this run's processes know"
MORTAL = """
import time
from datetime import timedelta
from commexp.server.hub import MESSAGE
from commexp.server.spoke import Spoke
spoke = Spoke(0, timedelta(seconds=10))
spoke.listen()
spoke.say(MESSAGE, spoke.next(), 1, 1.0, 0)
time.sleep(60)
"""


class World:
    """``processes``, ``timeout``: all that a Hub asks of the others."""

    processes, timeout = 3, WAIT


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("COMMEXP_SECRET", SECRET)
    monkeypatch.setattr("commexp.server.hub.COMING", 0.2)
    made = Hub(cast(Processes, World()))
    made.listen()
    yield made
    made.end()


@pytest.fixture
def spoke(hub: Hub) -> Iterator[Callable[[int], Spoke]]:
    """A worker that has come; it is dismissed at the end."""
    made: dict[int, Spoke] = {}

    def come(worker: int) -> Spoke:
        found = made[worker] = Spoke(worker, WAIT)
        found.listen()
        said = heard(hub)
        assert (said.worker, said.kind) == (worker, JOINED)
        return found

    yield come
    ending = [threading.Thread(target=leave, args=(s,)) for s in made.values()]
    for thread in ending:
        thread.start()
    hub.end()
    for thread in ending:
        thread.join(5)


def leave(spoke: Spoke) -> None:
    while not spoke.over:
        spoke.sleep(5)
    if not spoke._gone:
        spoke.end()


def heard(hub: Hub, seconds: float = 10) -> Said:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        said = hub.next(0.1)
        if said is not None:
            return said
    raise AssertionError("nothing was heard")


def body(value: int) -> torch.Tensor:
    return torch.full((3,), value, dtype=torch.uint8)


def given(spoke: Spoke) -> Given:
    found = spoke.next(10)
    assert found is not None
    return found


def order(hub: Hub, worker: int, version: int) -> None:
    hub.send(worker, version, 7, 8, 2, body(version))


def said(spoke: Spoke, order: Given, value: int, kind: int = MESSAGE) -> None:
    spoke.say(kind, order, 10 * value, 0.25, 1, body(value))


def test_orders_and_messages_arrive_whole(hub: Hub, spoke: Callable[[int], Spoke]) -> None:
    workers = [spoke(0), spoke(1)]
    for version in (3, 4):
        order(hub, 1, version)
    time.sleep(0.2)
    found = given(workers[1])
    assert (found.version, found.heard, found.done, found.kind, found.save) == (4, 7, 8, 2, False), "the newest"
    assert found.body.tolist() == [4, 4, 4]
    assert workers[1].next(0.05) is None, "it has been given out"
    said(workers[1], found, 5)
    message = heard(hub)
    assert (message.worker, message.kind, message.version, message.done) == (1, MESSAGE, 4, 50)
    assert (message.busy, message.bad, message.skipped, message.body.tolist()) == (250_000, 1, 0, [5, 5, 5])
    hub.request_save()
    order(hub, 0, 5)
    assert given(workers[0]).save
    order(hub, 0, 6)
    assert not given(workers[0]).save, "once is enough"
    assert hub.losses == []


def test_a_newer_message_takes_the_place_of_one_that_nobody_has_read(hub: Hub, spoke: Callable[[int], Spoke]) -> None:
    workers = [spoke(0), spoke(1)]
    for n in (0, 1):
        order(hub, n, 1)
    orders = [given(w) for w in workers]
    for worker, value in ((0, 1), (1, 2), (0, 3), (0, 4)):
        said(workers[worker], orders[worker], value)
        time.sleep(0.1)
    found = [heard(hub), heard(hub)]
    assert [(s.worker, s.body.tolist()[0], s.skipped) for s in found] == [(0, 4, 2), (1, 2, 0)], "its place in the row"
    assert hub.next(0.1) is None


def test_who_is_given_up_and_speaks_again_begins_a_new_life(hub: Hub, spoke: Callable[[int], Spoke]) -> None:
    worker = spoke(0)
    hub.silent(0.4)
    order(hub, 0, 1)
    old = given(worker)
    assert hub.silent(0.8) == [1], "who has not come at all"
    assert sorted(hub.silent(0.4)) == [0, 1]
    assert hub.lose(0)
    assert not hub.lose(0)
    assert (hub.silent(9), hub.there) == ([1], set())
    said(worker, old, 1)
    back = heard(hub)
    assert (back.worker, back.kind) == (0, JOINED), "its message is of a former life"
    order(hub, 0, 2)
    new = given(worker)
    said(worker, old, 2, FAULT)
    said(worker, new, 3)
    assert heard(hub).body.tolist() == [3, 3, 3]
    assert [(loss.rank, loss.round, loss.back) for loss in hub.losses] == [(1, 2, False), (1, 2, True)]


def test_who_dies_may_come_back_on_another_line(hub: Hub, spoke: Callable[[int], Spoke]) -> None:
    started = warm.Popen([sys.executable, "-c", MORTAL], env=environment() | {"COMMEXP_SECRET": SECRET})
    assert heard(hub, 60).kind == JOINED
    order(hub, 0, 1)
    while not hub._unread:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    while not hub._events:
        time.sleep(0.01)
    lost = heard(hub)
    assert (lost.worker, lost.kind) == (0, LOST)
    assert hub.next(0.1) is None, "what it had sent is dropped"
    second = spoke(0)
    order(hub, 0, 2)
    said(second, given(second), 2)
    assert heard(hub).body.tolist() == [2, 2, 2]
    assert hub.lives[0] == 2


def door() -> socket.socket:
    """A connection to the server of one who knows no more than what the store says."""
    host, port, _ = meeting_place(WAIT).get("door").decode().split()
    return socket.create_connection((host, int(port)), 5)


def is_closed(line: socket.socket) -> bool:
    """Within a few seconds, whatever was said before."""
    line.settimeout(5)
    try:
        while line.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_a_stranger_is_not_heard(hub: Hub, spoke: Callable[[int], Spoke], monkeypatch: pytest.MonkeyPatch) -> None:
    """One says that it is the worker that has just died, one sends garbage, one nothing, one a proof that was good
    once; worker 1 notices nothing of them."""
    worker = spoke(1)
    silent, garbage, replay = door(), door(), door()
    garbage.sendall(os.urandom(10_000))
    assert is_closed(garbage)
    which = struct.pack("<q", 0)
    replay.sendall(which + bytes(32) + secret.proof("process", which, bytes(32), bytes(32)))
    assert is_closed(replay)
    with monkeypatch.context() as patch:
        for wrong in ("", "guessed"):
            patch.setenv("COMMEXP_SECRET", wrong)
            with pytest.raises(LostProcessError, match="lost its connection to rank 0"):
                Spoke(0, WAIT).listen()
    assert (hub.next(0.1), hub.there, hub.losses) == (None, {1}, [])
    order(hub, 1, 1)
    said(worker, given(worker), 3)
    assert heard(hub).body.tolist() == [3, 3, 3]
    silent.close()


@pytest.mark.parametrize("harm", ["garbage", "wrong length", "wrong HMAC", "said again"])
def test_what_cannot_be_read_costs_its_sender_its_line(hub: Hub, spoke: Callable[[int], Spoke], harm: str) -> None:
    workers = [spoke(0), spoke(1)]
    for n in (0, 1):
        order(hub, n, 1)
    found = [given(w) for w in workers]
    line = workers[0]._line
    head = memoryview(struct.pack("<8q", 0, 2**60 if harm == "wrong length" else 0, MESSAGE, 1, 0, 1, 0, 0))
    good = bytes(head) + _mac(line._outward, 0, head)
    sent = {"garbage": os.urandom(4096), "wrong HMAC": good[:-1] + bytes([good[-1] ^ 1])}
    sent |= {"wrong length": bytes(head) + bytes(32), "said again": good + good}
    line._sock.sendall(sent[harm])
    lost = heard(hub)
    assert (lost.worker, lost.kind, hub.there) == (0, LOST, {1})
    assert is_closed(line._sock)
    said(workers[1], found[1], 3)
    assert heard(hub).body.tolist() == [3, 3, 3]


def test_the_server_is_known_by_the_secret(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    """Another's address in the store is not believed, nor one who listens at the right place and cannot prove it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1 {other.getsockname()[1]}"
        meeting_place(WAIT).set("door", f"{where} {bytes(32).hex()}")
        with pytest.raises(LostProcessError):
            Spoke(0, WAIT).listen()
        meeting_place(WAIT).set("door", f"{where} {secret.proof('door', where).hex()}")

        def pretend() -> None:
            line, _ = other.accept()
            line.sendall(bytes(32))
            line.recv(4096)
            line.sendall(bytes(32))

        pretender = threading.Thread(target=pretend)
        pretender.start()
        with pytest.raises(LostProcessError):
            Spoke(0, WAIT).listen()
        pretender.join()


STOPPED = """
import sys, threading
from datetime import timedelta
from commexp.server.hub import Hub
class World: processes, timeout = 2, timedelta(seconds=1)
hub = Hub(World())
hub.listen()
while True: hub.next(1)
"""


def test_a_server_that_is_stopped_is_missed_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "COMMEXP_SECRET": SECRET}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    started = warm.Popen([sys.executable, "-c", STOPPED], env=environment() | env)
    try:
        worker = Spoke(0, timedelta(seconds=1))
        meeting_place(timedelta(seconds=60)).get("door")
        worker.listen()
        assert worker.next(1.5) is None, "signs of life are enough"
        os.kill(started.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(LostProcessError, match=r"^rank 1: no word from rank 0 in launch\.timeout=1 s$"):
            worker.next()
        assert time.monotonic() - begun < 2
    finally:
        started.kill()
        started.wait()
