"""What torch's elastic agent asks of a rendezvous: processes that are started here meet without it.

torchrun's own listens on every interface of the host, and lets whoever reaches it read and write. Ours meet in a folder
that nobody else can look into (comm/lines.py).
"""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

NAME = "commexp-loopback"
HOST = "127.0.0.1"


class Loopback(RendezvousHandler):
    """One host, one agent. ``port``: told to the processes as MASTER_PORT; nothing listens there."""

    def __init__(self, port: int, run_id: str) -> None:
        self.port, self.run_id = port, run_id

    def get_backend(self) -> str:
        return NAME

    @property
    def use_agent_store(self) -> bool:
        return False

    def next_rendezvous(self) -> RendezvousInfo:
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
