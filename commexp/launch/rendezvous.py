"""A meeting place on this host for processes that are started here: a store that listens on the loopback alone.

torchrun's own rendezvous listens on every interface of the host.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

NAME = "commexp-loopback"
HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A socket on the loopback interface; port 0 is any that is free. Raises OSError if it cannot be had."""
    return socket.create_server((HOST, port))


class Loopback(RendezvousHandler):
    """One host, one agent. ``listening``: the socket of the first meeting; those after restarts take the same port.

    Every meeting has a store of its own: what processes that are dead now left in one would lead the new ones astray.
    """

    def __init__(self, listening: socket.socket, run_id: str, timeout: timedelta) -> None:
        self.run_id, self.timeout = run_id, timeout
        self.listening: socket.socket | None = listening
        self.port = listening.getsockname()[1]
        self.store: Any = None

    def get_backend(self) -> str:
        return NAME

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        self.store = None  # closes the last one
        listening, self.listening = self.listening or listen(self.port), None
        self.store = dist.TCPStore(  # type: ignore[attr-defined]
            HOST,
            self.port,
            is_master=True,
            timeout=self.timeout,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
            use_libuv=True,
        )
        agents = dist.HashStore()  # type: ignore[attr-defined]
        return RendezvousInfo(agents, 0, 1, RendezvousStoreInfo(HOST, self.port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """There is nobody else to tell."""

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self.run_id

    def shutdown(self) -> bool:
        return True
