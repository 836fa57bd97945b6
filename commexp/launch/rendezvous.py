"""A meeting place on this host for processes that are started here: a store that listens on the loopback alone.

torchrun's own rendezvous listens on every interface of the host.
"""

from __future__ import annotations

import socket
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

NAME = "commexp-loopback"
HOST = "127.0.0.1"


class Loopback(RendezvousHandler):
    """One host, one agent. ``listening``: a socket bound to HOST."""

    def __init__(self, listening: socket.socket, run_id: str, timeout: timedelta) -> None:
        self.port, self.run_id = listening.getsockname()[1], run_id
        self.store = dist.TCPStore(  # type: ignore[attr-defined]
            HOST,
            self.port,
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
            use_libuv=True,
        )

    def get_backend(self) -> str:
        return NAME

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        where = RendezvousStoreInfo(HOST, self.port)
        store = dist.PrefixStore(self.run_id, self.store)  # type: ignore[attr-defined]
        return RendezvousInfo(store, 0, 1, where)

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


def create(params: RendezvousParameters) -> RendezvousHandler:
    """From rdzv_configs: ``listening`` and ``timeout`` in seconds."""
    return Loopback(params.config["listening"], params.run_id, timedelta(seconds=params.config["timeout"]))


rendezvous_handler_registry.register(NAME, create)
