"""Lines between the server's process and the others: messages over TCP, each a few numbers and some bytes.

The server has a door, where a process proves that it knows the run's secret (secret.py) before anything else of it is
read, and the server proves the same to it:

    server  -> process      a random number s
    process -> server       which it is, a random number p, HMAC(secret, "process", which, s, p)
    server  -> process      HMAC(secret, "server", which, s, p)

The address of the door is signed likewise. Each direction has a key made of both random numbers, and every head and
every body is followed by its HMAC with that key and its place in the row: a message cannot be made, changed, left out
or repeated by anyone else, and how long a body is is known to be true before there is memory for it. Whoever sends
what does not fit loses its line.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import FileStore, PrefixStore, Store, TCPStore

from commexp.comm import secret
from commexp.comm.links import LostProcessError
from commexp.ranks import MEETING, one_host

NOTHING = torch.empty(0, dtype=torch.uint8)
HELLO = 10.0  # seconds in which a process that has come is to prove itself
STRANGERS = 64  # so many may try at a time
WORD, BEAT = 0, 1  # what a message is: one, or only a sign of life
BEATS = 4  # signs of life in launch.timeout
DOOR = "door"
LOOPBACK = "127.0.0.1"


class Channel:
    """This process's end of a line. Heads have ``out`` numbers on their way there and ``back`` on their way here.
    Sending and listening raise RuntimeError where the other process is gone or says what it cannot have said, and
    TimeoutError where it is silent for longer than ``patience`` seconds."""

    def __init__(
        self, sock: socket.socket, keys: tuple[bytes, bytes], out: int, back: int, patience: float | None
    ) -> None:
        self.out, self.back = out, back
        self._sock, (self._outward, self._inward) = sock, keys
        self._sent = self._read = 0
        self._waiting: queue.SimpleQueue[tuple[Sequence[int], Tensor] | None] = queue.SimpleQueue()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.settimeout(patience)

    def tell(self, head: Sequence[int], body: Tensor = NOTHING) -> None:
        """Sends, and waits until that is done. ``body``: uint8."""
        assert len(head) == self.out
        self._write(WORD, head, body)

    def send(self, head: Sequence[int], body: Tensor = NOTHING) -> None:
        """Has it sent by ``keep_sending``, and does not wait."""
        self._waiting.put((head, body))

    def keep_sending(self, beat: float) -> None:
        """What ``send`` is given, until the line is closed; and a sign of life after so many seconds without."""
        with suppress(RuntimeError, OSError):
            while True:
                try:
                    given = self._waiting.get(timeout=beat)
                except queue.Empty:
                    self._write(BEAT, [0] * self.out, NOTHING)
                    continue
                if given is None:
                    return
                self.tell(*given)
        self.close()

    def listen(self) -> tuple[list[int], Tensor]:
        """The next message of the other: head and body."""
        form = struct.Struct(f"<{self.back + 2}q")
        while True:
            head, body = bytearray(form.size), NOTHING
            self._take(memoryview(head))
            kind, size, *numbers = form.unpack(head)
            if size:
                body = torch.empty(size, dtype=torch.uint8)
                self._take(memoryview_of(body))
            if kind == WORD:
                return numbers, body

    def close(self) -> None:
        """Whoever sends or listens at either end is told."""
        self._waiting.put(None)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _write(self, kind: int, head: Sequence[int], body: Tensor) -> None:
        pieces = [memoryview(struct.pack(f"<{self.out + 2}q", kind, len(body), *head))]
        pieces += [memoryview_of(body)] if len(body) else []
        try:
            for piece in pieces:
                self._sock.sendall(piece)
                self._sock.sendall(_mac(self._outward, self._sent, piece))
                self._sent += 1
        except TimeoutError:
            raise
        except OSError as error:
            raise RuntimeError(f"the line is gone: {error}") from error

    def _take(self, into: memoryview) -> None:
        """A head or a body, believed only if its HMAC fits."""
        read_into(self._sock, into)
        mac = read(self._sock, secret.PROOF)
        if not secret.equal(mac, _mac(self._inward, self._read, into)):
            raise RuntimeError("a message is not of this run")
        self._read += 1


class Door:
    """Where processes come to the server's. ``come``: called in a thread of its own with whoever has proved itself,
    and its line; the line ends when it returns. Raises RuntimeError where ``port`` cannot be had."""

    def __init__(
        self, port: int, timeout: timedelta, out: int, back: int, ids: range, come: Callable[[int, Channel], None]
    ) -> None:
        self._seconds, self._heads, self._ids, self._come = timeout.total_seconds(), (out, back), ids, come
        try:
            if one_host():
                host, self._sock = LOOPBACK, socket.create_server((LOOPBACK, port))
            else:
                both = socket.has_dualstack_ipv6()
                family = socket.AF_INET6 if both else socket.AF_INET
                host = os.environ["MASTER_ADDR"]
                self._sock = socket.create_server(("", port), family=family, dualstack_ipv6=both)
        except OSError as error:
            raise LostProcessError(no_port(port, error), "") from error
        self._strangers = threading.BoundedSemaphore(STRANGERS)
        address = f"{host} {self._sock.getsockname()[1]}"
        self._store = meeting_place(timeout)
        self._store.set(DOOR, f"{address} {secret.proof(DOOR, address).hex()}")
        threading.Thread(target=self._open, daemon=True).start()

    def close(self) -> None:
        with suppress(RuntimeError):
            self._store.delete_key(DOOR)  # the same processes may go on to another run, whose door is another
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # or the thread would wait for ever
        self._sock.close()

    def _open(self) -> None:
        with suppress(OSError):  # closed
            while True:
                sock, _ = self._sock.accept()
                if self._strangers.acquire(blocking=False):
                    threading.Thread(target=self._greet, args=(sock,), daemon=True).start()
                else:
                    sock.close()

    def _greet(self, sock: socket.socket) -> None:
        try:
            who, line = self._prove(sock)
        except (OSError, RuntimeError):
            sock.close()
            return
        finally:
            self._strangers.release()
        threading.Thread(target=line.keep_sending, args=(self._seconds / BEATS,), daemon=True).start()
        try:
            self._come(who, line)
        finally:
            line.close()

    def _prove(self, sock: socket.socket) -> tuple[int, Channel]:
        sock.settimeout(HELLO)
        mine = secret.nonce()
        sock.sendall(mine)
        theirs = read(sock, 8 + secret.NONCE + secret.PROOF, HELLO)
        which, its, proof = theirs[:8], theirs[8 : 8 + secret.NONCE], theirs[8 + secret.NONCE :]
        (who,) = struct.unpack("<q", which)
        if not secret.equal(proof, secret.proof("process", which, mine, its)) or who not in self._ids:
            raise RuntimeError("a stranger")
        sock.sendall(secret.proof("server", which, mine, its))
        down, up = (secret.proof(way, which, mine, its) for way in ("down", "up"))
        return who, Channel(sock, (down, up), *self._heads, None)


def no_port(port: int, error: OSError) -> str:
    """What the first process says where it cannot listen."""
    return (
        f"rank 0: launch.port={port} cannot be had on {LOOPBACK} ({os.strerror(error.errno or 0)}); "
        "give another, or 0 for a free one"
    )


def enter(which: int, timeout: timedelta, out: int, back: int) -> Channel:
    """This process's end of its line to the server, which may be silent for ``timeout``. Raises RuntimeError where
    there is no server, or none of this run."""
    seconds = timeout.total_seconds()
    address, _, signature = meeting_place(timeout).get(DOOR).rpartition(b" ")
    if not secret.equal(signature, secret.proof(DOOR, address).hex().encode()):
        raise RuntimeError("the address of the server is not of this run")
    host, port = address.decode().split()
    packed, mine = struct.pack("<q", which), secret.nonce()
    try:
        sock = socket.create_connection((host, int(port)), seconds)
        its = read(sock, secret.NONCE, seconds)
        sock.sendall(packed + mine + secret.proof("process", packed, its, mine))
        proof = read(sock, secret.PROOF, seconds)
    except OSError as error:
        raise RuntimeError(f"the server does not answer: {error}") from error
    if not secret.equal(proof, secret.proof("server", packed, its, mine)):
        raise RuntimeError("the server does not know the secret of this run")
    up, down = (secret.proof(way, packed, its, mine) for way in ("up", "down"))
    return Channel(sock, (up, down), out, back, seconds)


def read(sock: socket.socket, size: int, seconds: float = math.inf) -> bytes:
    """So many bytes, see ``read_into``."""
    found = bytearray(size)
    read_into(sock, memoryview(found), seconds)
    return bytes(found)


def read_into(sock: socket.socket, view: memoryview, seconds: float = math.inf) -> None:
    """Fills it, within so many seconds in all. Raises RuntimeError where the other end is gone, TimeoutError where it
    is silent."""
    end = time.monotonic() + seconds
    while len(view):
        if time.monotonic() > end:
            raise TimeoutError("too slow")
        try:
            count = sock.recv_into(view)
        except TimeoutError:
            if not select.select([sock], [], [], 0)[0]:  # else it was this process that has been stopped
                raise
            continue
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the line is gone: {error}") from error
        if not count:
            raise RuntimeError("the line is gone: closed by the other process")
        view = view[count:]


def memoryview_of(x: Tensor) -> memoryview:
    """The bytes of a tensor uint8 [n]; its own where it lies in this process's memory."""
    octets: Any = x.cpu().contiguous().numpy()
    return memoryview(octets)


def _mac(key: bytes, place: int, octets: memoryview) -> bytes:
    mac = hmac.new(key, struct.pack("<q", place), hashlib.sha256)
    mac.update(octets)
    return mac.digest()


def meeting_place(timeout: timedelta) -> Store:
    """Where the processes of this run meet; a connection of its own. Processes that are started here meet in a folder
    that no other user can look into; others in the store of their launcher, which whoever reaches it can read."""
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if MEETING in os.environ:
        store: Store = FileStore(os.path.join(os.environ[MEETING], life), -1)
        store.set_timeout(timeout)
    else:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timeout, wait_for_workers=False)
    return PrefixStore(f"commexp/{life}", store)


def as_bytes(x: Tensor) -> Tensor:
    """A copy of x in this process's memory, uint8."""
    return x.detach().cpu().contiguous().view(torch.uint8).clone()
