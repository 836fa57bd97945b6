"""Channels between the server's process and the others: messages over TCP, each a head of numbers and some bytes.

A process connects to the server's door. Before the server reads anything else, the process proves that it knows the
run's secret (comm/secret.py), and the server proves the same to it:

    server  -> process      a random number s
    process -> server       its rank r, a random number p, HMAC(secret, "process", r, s, p)
    server  -> process      HMAC(secret, "server", r, s, p)

The address of the door is signed likewise. Each direction has a key made of both random numbers. Every head and every
body is followed by its HMAC with that key and its sequence number: nobody else can make, change, drop or repeat a
message, and the length of a body is authenticated before memory is allocated for it. A message that does not fit costs
its sender the channel.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
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
from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # not in __all__

from commexp.comm import secret
from commexp.comm.links import LostProcessError
from commexp.ranks import MEETING, one_host, run_number

NOTHING = torch.empty(0, dtype=torch.uint8)
HELLO = 10.0  # seconds in which a process that connects must prove itself
STRANGERS = 64  # processes that may try at the same time
MESSAGE, BEAT = 0, 1  # what follows on a channel: a message, or only a sign of life
NUMBERS = 6  # in the head of a message
HEAD = struct.Struct(f"<{2 + NUMBERS}q")  # MESSAGE or BEAT, the length of the body, the numbers
BEATS = 4  # signs of life within launch.timeout
DOOR = "door"
LOOPBACK = "127.0.0.1"


class Channel:
    """This process's end of a channel. A head is NUMBERS integers of 64 bits, a body a uint8 tensor of any length.
    Sending and receiving raise RuntimeError where the other process is gone or sends what does not fit, and
    TimeoutError where it is silent for longer than ``patience`` seconds."""

    def __init__(self, sock: socket.socket, keys: tuple[bytes, bytes], patience: float | None) -> None:
        self._sock, (self._outward, self._inward) = sock, keys
        self._sent = self._read = 0
        self._changed = threading.Condition()
        self._posted: tuple[Sequence[int], Tensor] | None = None
        self._closed = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.settimeout(patience)

    def send(self, head: Sequence[int], body: Tensor = NOTHING) -> None:
        """Returns once the message is on its way."""
        self._write(MESSAGE, head, body)

    def post(self, head: Sequence[int], body: Tensor = NOTHING) -> Sequence[int] | None:
        """Leaves the message to ``keep_sending`` and returns at once. It replaces one that still waits there: returns
        the head of that one, else None."""
        with self._changed:
            replaced, self._posted = self._posted, (head, body)
            self._changed.notify()
        return None if replaced is None else replaced[0]

    def keep_sending(self, beat: float) -> None:
        """Sends what is posted until the channel is closed, and a sign of life after ``beat`` seconds without."""
        with suppress(RuntimeError, OSError):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._posted is not None, beat)
                    if self._closed:
                        return
                    posted, self._posted = self._posted, None
                if posted is None:
                    self._write(BEAT, [0] * NUMBERS, NOTHING)
                else:
                    self.send(*posted)
        self.close()

    def receive(self) -> tuple[list[int], Tensor]:
        """Waits for the next message of the other process: head and body."""
        while True:
            head, body = bytearray(HEAD.size), NOTHING
            self._take(memoryview(head))
            kind, size, *numbers = HEAD.unpack(head)
            if size:
                body = torch.empty(size, dtype=torch.uint8)
                self._take(memoryview_of(body))
            if kind == MESSAGE:
                return numbers, body

    def close(self) -> None:
        """Whoever sends or receives at either end gets an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _write(self, kind: int, head: Sequence[int], body: Tensor) -> None:
        pieces = [memoryview(HEAD.pack(kind, len(body), *head))]
        pieces += [memoryview_of(body)] if len(body) else []
        try:
            for piece in pieces:
                self._sock.sendall(piece)
                self._sock.sendall(_mac(self._outward, self._sent, piece))
                self._sent += 1
        except TimeoutError:
            raise
        except OSError as error:
            raise RuntimeError(f"the channel is closed: {error}") from error

    def _take(self, into: memoryview) -> None:
        """Fills ``into`` with a head or a body; raises RuntimeError if its HMAC does not fit."""
        read_into(self._sock, into)
        mac = read(self._sock, secret.PROOF)
        if not secret.equal(mac, _mac(self._inward, self._read, into)):
            raise RuntimeError("a message is not of this run")
        self._read += 1


class Door:
    """Where the processes ``ranks`` connect to the server. ``attend``: is called in a thread of its own with the rank
    of a process that has proved itself and its channel; the channel is closed when it returns. Raises LostProcessError
    where ``port`` cannot be had."""

    def __init__(self, port: int, timeout: timedelta, ranks: range, attend: Callable[[int, Channel], None]) -> None:
        self._seconds, self._ranks, self._attend = timeout.total_seconds(), ranks, attend
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
        self._store = rendezvous_store(timeout)
        self._store.set(DOOR, f"{address} {secret.proof(DOOR, address).hex()}")
        threading.Thread(target=self._open, daemon=True).start()

    def close(self) -> None:
        with suppress(RuntimeError):
            self._store.delete_key(DOOR)  # the next run of the same processes has another door
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # accept() would wait for ever
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
            rank, channel = self._prove(sock)
        except (OSError, RuntimeError):
            sock.close()
            return
        finally:
            self._strangers.release()
        threading.Thread(target=channel.keep_sending, args=(self._seconds / BEATS,), daemon=True).start()
        try:
            self._attend(rank, channel)
        finally:
            channel.close()

    def _prove(self, sock: socket.socket) -> tuple[int, Channel]:
        """Raises RuntimeError for a process that does not know the secret or is none of ``ranks``."""
        sock.settimeout(HELLO)
        mine = secret.nonce()
        sock.sendall(mine)
        theirs = read(sock, 8 + secret.NONCE + secret.PROOF, HELLO)
        packed, its, proof = theirs[:8], theirs[8 : 8 + secret.NONCE], theirs[8 + secret.NONCE :]
        (rank,) = struct.unpack("<q", packed)
        if not secret.equal(proof, secret.proof("process", packed, mine, its)) or rank not in self._ranks:
            raise RuntimeError("a stranger")
        sock.sendall(secret.proof("server", packed, mine, its))
        down, up = (secret.proof(way, packed, mine, its) for way in ("down", "up"))
        return rank, Channel(sock, (down, up), None)


def no_port(port: int, error: OSError) -> str:
    """What the first process says where it cannot listen."""
    return (
        f"rank 0: launch.port={port} cannot be had on {LOOPBACK} ({os.strerror(error.errno or 0)}); "
        "give another, or 0 for a free one"
    )


def connect(rank: int, timeout: timedelta) -> Channel:
    """The end of process ``rank`` of its channel to the server, which may be silent for ``timeout``. Raises
    RuntimeError where there is no server, or none of this run."""
    seconds = timeout.total_seconds()
    address, _, signature = rendezvous_store(timeout).get(DOOR).rpartition(b" ")
    if not secret.equal(signature, secret.proof(DOOR, address).hex().encode()):
        raise RuntimeError("the address of the server is not of this run")
    host, port = address.decode().split()
    packed, mine = struct.pack("<q", rank), secret.nonce()
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
    return Channel(sock, (up, down), seconds)


def read(sock: socket.socket, size: int, seconds: float = math.inf) -> bytes:
    """``size`` bytes, see ``read_into``."""
    octets = bytearray(size)
    read_into(sock, memoryview(octets), seconds)
    return bytes(octets)


def read_into(sock: socket.socket, view: memoryview, seconds: float = math.inf) -> None:
    """Fills ``view`` within ``seconds`` in all. Raises RuntimeError where the other end is gone, TimeoutError where it
    is silent."""
    end = time.monotonic() + seconds
    while len(view):
        if time.monotonic() > end:
            raise TimeoutError("too slow")
        try:
            count = sock.recv_into(view)
        except TimeoutError:
            if not select.select([sock], [], [], 0)[0]:  # bytes wait here where this process was stopped meanwhile
                raise
            continue
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the channel is closed: {error}") from error
        if not count:
            raise RuntimeError("the channel is closed by the other process")
        view = view[count:]


def memoryview_of(x: Tensor) -> memoryview:
    """The bytes of a tensor uint8 [n]; its own where it lies in this process's memory."""
    octets: Any = x.cpu().contiguous().numpy()
    return memoryview(octets)


def _mac(key: bytes, number: int, octets: memoryview) -> bytes:
    mac = hmac.new(key, struct.pack("<q", number), hashlib.sha256)
    mac.update(octets)
    return mac.digest()


def rendezvous_store(timeout: timedelta, name: str = "commexp") -> Store:
    """A connection to the store in which the processes of this run find each other: a folder that no other user can
    read where commexp has started them, else the store of the user's launcher, which anyone who reaches it can read.
    ``name``: of the part of it whose keys are meant."""
    generation = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if MEETING in os.environ:
        store: Store = FileStore(os.path.join(os.environ[MEETING], generation), -1)
        store.set_timeout(timeout)
    else:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timeout, wait_for_workers=False)
    return PrefixStore(f"{name}/{generation}/{run_number()}", store)


def copied_bytes(x: Tensor) -> Tensor:
    """A copy of x in this process's memory, uint8."""
    return x.detach().cpu().contiguous().view(torch.uint8).clone()


def as_text(text: str) -> Tensor:
    """The bytes of a text, uint8."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
