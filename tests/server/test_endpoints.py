"""A server and its workers, over real channels, all in one process: whose messages count, and whose do not."""

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

import pytest
import torch
import warm
from conftest import environment
from torch.distributed import TCPStore

from commexp.algorithms.base import WorkItem
from commexp.comm import LostProcessError, secret
from commexp.server.channel import HEAD, _mac, rendezvous_store
from commexp.server.endpoints import FAULT, JOINED, LOST, MESSAGE, PackedUpdate, ServerEndpoint, WorkerEndpoint

WAIT = timedelta(seconds=60)
SECRET = "what only this run's processes know"
MORTAL = """
import time
from datetime import timedelta
from commexp.server.endpoints import MESSAGE, WorkerEndpoint
worker = WorkerEndpoint(1, 3, timedelta(seconds=10), True)
worker.connect()
worker.send(MESSAGE, worker.next(), 1, 1.0, 0)
time.sleep(60)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerEndpoint]:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("COMMEXP_SECRET", SECRET)
    monkeypatch.setattr("commexp.server.endpoints.JOINING", 0.2)
    made = ServerEndpoint(3, WAIT, 2, True, rejoins=True)
    made.listen()
    yield made
    made.end()


@pytest.fixture
def join(server: ServerEndpoint) -> Iterator[Callable[[int], WorkerEndpoint]]:
    """A process that has joined; it leaves at the end."""
    made: dict[int, WorkerEndpoint] = {}

    def come(rank: int) -> WorkerEndpoint:
        worker = made[rank] = WorkerEndpoint(rank, 3, WAIT, True)
        worker.connect()
        update = received(server)
        assert (update.rank, update.kind) == (rank, JOINED)
        return worker

    yield come
    ending = [threading.Thread(target=leave, args=(s,)) for s in made.values()]
    for thread in ending:
        thread.start()
    server.end()
    for thread in ending:
        thread.join(5)


def leave(worker: WorkerEndpoint) -> None:
    while not worker.over:
        worker.sleep(5)
    if not worker._gone:
        worker.leave()


def received(server: ServerEndpoint, seconds: float = 10) -> PackedUpdate:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        update = server.next(0.1)
        if update is not None:
            return update
    raise AssertionError("nothing came")


def body(value: int) -> torch.Tensor:
    return torch.full((3,), value, dtype=torch.uint8)


def taken(worker: WorkerEndpoint) -> WorkItem:
    item = worker.next(10)
    assert item is not None
    return item


def give(server: ServerEndpoint, rank: int, version: int) -> None:
    server.send(rank, WorkItem(body(version), version, 7, 8, 2))


def answer(worker: WorkerEndpoint, item: WorkItem, value: int, kind: int = MESSAGE) -> None:
    worker.send(kind, item, 10 * value, 0.25, 1, body(value))


def test_items_and_updates_arrive_whole(server: ServerEndpoint, join: Callable[[int], WorkerEndpoint]) -> None:
    workers = [join(1), join(2)]
    for version in (3, 4):
        give(server, 2, version)
    time.sleep(0.2)
    found = taken(workers[1])
    numbers = found.version, found.messages_received, found.local_steps, found.kind, found.save
    assert numbers == (4, 7, 8, 2, False), "the newest"
    assert found.body.tolist() == [4, 4, 4]
    assert workers[1].next(0.05) is None, "it has been given out"
    answer(workers[1], found, 5)
    message = received(server)
    assert (message.rank, message.kind, message.version, message.local_steps) == (2, MESSAGE, 4, 50)
    assert (message.busy, message.bad, message.overwritten, message.body.tolist()) == (250_000, 1, 0, [5, 5, 5])
    server.request_save()
    give(server, 1, 5)
    assert taken(workers[0]).save
    give(server, 1, 6)
    assert not taken(workers[0]).save, "once is enough"
    assert server.losses == []


def test_a_newer_message_takes_the_place_of_one_that_nobody_has_read(
    server: ServerEndpoint, join: Callable[[int], WorkerEndpoint]
) -> None:
    workers = [join(1), join(2)]
    for rank in (1, 2):
        give(server, rank, 1)
    items = [taken(w) for w in workers]
    for worker, value in ((0, 1), (1, 2), (0, 3), (0, 4)):
        answer(workers[worker], items[worker], value)
        time.sleep(0.1)
    found = [received(server), received(server)]
    assert [(s.rank, s.body.tolist()[0], s.overwritten) for s in found] == [(1, 4, 2), (2, 2, 0)], (
        "its place in the row"
    )
    assert server.next(0.1) is None


def test_who_is_given_up_and_speaks_again_begins_a_new_generation(
    server: ServerEndpoint, join: Callable[[int], WorkerEndpoint]
) -> None:
    worker = join(1)
    server.late(24)
    give(server, 1, 1)
    old = taken(worker)
    assert server.late(48) == [2], "who has not come at all"
    assert sorted(server.late(24)) == [1, 2]
    assert server.lose(1)
    assert not server.lose(1)
    assert (server.late(540), server.joined) == ([2], set())
    answer(worker, old, 1)
    back = received(server)
    assert (back.rank, back.kind) == (1, JOINED), "its message is of an earlier generation"
    give(server, 1, 2)
    new = taken(worker)
    answer(worker, old, 2, FAULT)
    answer(worker, new, 3)
    assert received(server).body.tolist() == [3, 3, 3]
    assert [(loss.rank, loss.round, loss.back) for loss in server.losses] == [(1, 2, False), (1, 2, True)]


def test_who_dies_may_come_back_on_another_channel(
    server: ServerEndpoint, join: Callable[[int], WorkerEndpoint]
) -> None:
    started = warm.Popen([sys.executable, "-c", MORTAL], env=environment() | {"COMMEXP_SECRET": SECRET})
    assert received(server, 60).kind == JOINED
    give(server, 1, 1)
    while not server._unread:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    while not server._events:
        time.sleep(0.01)
    lost = received(server)
    assert (lost.rank, lost.kind) == (1, LOST)
    assert server.next(0.1) is None, "what it had sent is dropped"
    second = join(1)
    give(server, 1, 2)
    answer(second, taken(second), 2)
    assert received(server).body.tolist() == [2, 2, 2]
    assert server.generations[1] == 2


def door() -> socket.socket:
    """A connection to the server of one who knows no more than what the store says."""
    host, port, _ = rendezvous_store(WAIT).get("door").decode().split()
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


def test_a_stranger_is_not_heard(
    server: ServerEndpoint, join: Callable[[int], WorkerEndpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One says that it is the worker that has just died, one sends garbage, one nothing, one a proof that was good
    once; process 2 notices nothing of them."""
    worker = join(2)
    silent, garbage, replay = door(), door(), door()
    garbage.sendall(os.urandom(10_000))
    assert is_closed(garbage)
    rank = struct.pack("<q", 1)
    replay.sendall(rank + bytes(32) + secret.proof("process", rank, bytes(32), bytes(32)))
    assert is_closed(replay)
    with monkeypatch.context() as patch:
        for wrong in ("", "guessed"):
            patch.setenv("COMMEXP_SECRET", wrong)
            with pytest.raises(LostProcessError, match="lost its connection to rank 0"):
                WorkerEndpoint(1, 3, WAIT, True).connect()
    assert (server.next(0.1), server.joined, server.losses) == (None, {2}, [])
    give(server, 2, 1)
    answer(worker, taken(worker), 3)
    assert received(server).body.tolist() == [3, 3, 3]
    silent.close()


@pytest.mark.parametrize("harm", ["garbage", "wrong length", "wrong HMAC", "said again"])
def test_what_cannot_be_read_costs_its_sender_its_channel(
    server: ServerEndpoint, join: Callable[[int], WorkerEndpoint], harm: str
) -> None:
    workers = [join(1), join(2)]
    for rank in (1, 2):
        give(server, rank, 1)
    found = [taken(w) for w in workers]
    channel = workers[0]._channel
    head = memoryview(HEAD.pack(0, 2**60 if harm == "wrong length" else 0, MESSAGE, 1, 0, 1, 0, 0))
    good = bytes(head) + _mac(channel._outward, 0, head)
    sent = {"garbage": os.urandom(4096), "wrong HMAC": good[:-1] + bytes([good[-1] ^ 1])}
    sent |= {"wrong length": bytes(head) + bytes(32), "said again": good + good}
    channel._sock.sendall(sent[harm])
    lost = received(server)
    if harm == "said again" and lost.kind == MESSAGE:  # the first of the two, read before the second came
        lost = received(server)
    assert (lost.rank, lost.kind, server.joined) == (1, LOST, {2})
    assert is_closed(channel._sock)
    answer(workers[1], found[1], 3)
    assert received(server).body.tolist() == [3, 3, 3]


def test_the_server_is_known_by_the_secret(monkeypatch: pytest.MonkeyPatch, server: ServerEndpoint) -> None:
    """Another's address in the store is not believed, nor one who listens at the right place and cannot prove it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1 {other.getsockname()[1]}"
        rendezvous_store(WAIT).set("door", f"{where} {bytes(32).hex()}")
        with pytest.raises(LostProcessError):
            WorkerEndpoint(1, 3, WAIT, True).connect()
        rendezvous_store(WAIT).set("door", f"{where} {secret.proof('door', where).hex()}")

        def pretend() -> None:
            line, _ = other.accept()
            line.sendall(bytes(32))
            line.recv(4096)
            line.sendall(bytes(32))

        pretender = threading.Thread(target=pretend)
        pretender.start()
        with pytest.raises(LostProcessError):
            WorkerEndpoint(1, 3, WAIT, True).connect()
        pretender.join()


STOPPED = """
from datetime import timedelta
from commexp.server.endpoints import ServerEndpoint
server = ServerEndpoint(2, timedelta(seconds=1), 1, True, rejoins=True)
server.listen()
while True: server.next(1)
"""


def test_a_server_that_is_stopped_is_missed_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "COMMEXP_SECRET": SECRET}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    started = warm.Popen([sys.executable, "-c", STOPPED], env=environment() | env)
    try:
        worker = WorkerEndpoint(1, 2, timedelta(seconds=1), True)
        rendezvous_store(timedelta(seconds=60)).get("door")
        worker.connect()
        assert worker.next(1.5) is None, "signs of life are enough"
        os.kill(started.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(LostProcessError, match=r"^rank 1: no word from rank 0 in launch\.timeout=1 s$"):
            worker.next()
        assert time.monotonic() - begun < 2
        with pytest.raises(LostProcessError, match=r"^rank 1: no word from rank 0"):  # also if it was busy meanwhile
            worker.leave()
    finally:
        started.kill()
        started.wait()
