"""Lines between two processes: messages point to point over Gloo, each a few numbers and some bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroupGloo, Store, TCPStore

EVER = timedelta(days=365)  # a listener is not to give up
NOTHING = torch.empty(0, dtype=torch.uint8)


class Group(Protocol):
    """What there is of torch's process groups, and of Gloo's own, for messages from one process to another."""

    def send(self, tensors: list[Tensor], rank: int, tag: int, /) -> dist.Work: ...
    def recv(self, tensors: list[Tensor], rank: int, tag: int, /) -> dist.Work: ...


class Line:
    """This process's end of a line to process ``peer`` of ``group``. Heads have ``out`` numbers on their way there and
    ``back`` on their way here. Sending and listening raise RuntimeError where the other process is gone."""

    def __init__(self, group: Group, peer: int, out: int, back: int) -> None:
        self.group, self.peer, self.out, self.back = group, peer, out, back

    def send(self, head: Sequence[int], body: Tensor = NOTHING) -> list[tuple[dist.Work, Tensor]]:
        """``body``: uint8. Does not wait; what it returns is to be kept until the other has the message."""
        assert len(head) == self.out
        pieces = [torch.tensor([*head, len(body)]), *([body.cpu()] if len(body) else [])]
        return [(self.group.send([piece], self.peer, 0), piece) for piece in pieces]

    def tell(self, head: Sequence[int], body: Tensor = NOTHING) -> None:
        """Sends, and waits until that is done."""
        for work, _ in self.send(head, body):
            work.wait(EVER)

    def listen(self) -> tuple[list[int], Tensor]:
        """The next message of the other: head and body. Waits for it for ever."""
        head = torch.empty(self.back + 1, dtype=torch.int64)
        self.group.recv([head], self.peer, 0).wait(EVER)
        *numbers, size = head.tolist()
        body = torch.empty(size, dtype=torch.uint8)
        if size:
            self.group.recv([body], self.peer, 0).wait(EVER)
        return numbers, body


def group_of_all() -> Group:
    """For messages between any two processes, which may take as long as they like. All processes call it together."""
    group = dist.new_group(backend="gloo", timeout=EVER)
    assert isinstance(group, dist.ProcessGroup)
    return group


def meeting_place(timeout: timedelta) -> Store:
    """The store at which the processes of this run have met; a connection of its own."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timeout, wait_for_workers=False)
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"commexp/{restarts}", store)


def name_of(worker: int) -> str:
    """Where the server and this worker meet; how often the worker has come is counted there."""
    return f"worker-{worker}"


def group_of_two(store: Store, name: str, rank: int, timeout: timedelta) -> Group:
    """Rank 0 or 1 of two processes that come to ``name`` within ``timeout``; RuntimeError where one does not."""
    there = PrefixStore(name, store)
    return cast(Group, ProcessGroupGloo(there, rank, 2, timeout))


def as_bytes(x: Tensor) -> Tensor:
    """A copy of x in this process's memory, uint8."""
    return x.detach().cpu().contiguous().view(torch.uint8).clone()
