"""The worker of an asynchronous method in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from commexp.algorithms.base import WorkerUpdate, WorkItem
from commexp.comm import pack_frames
from commexp.network import EventClock
from commexp.problems import NonFiniteGuard
from commexp.server.channel import as_text
from commexp.server.endpoints import FAULT, MESSAGE, WorkerEndpoint
from commexp.server.workers import LocalWorkers
from commexp.state import load_checked

State = dict[str, Tensor]


class WorkerProcess(LocalWorkers):
    """Worker ``endpoint.world_rank`` - 1. The server is in another process: nothing arrives here but its items."""

    clock: EventClock

    def serve(self, worker: int, item: WorkItem, gradients: float, up: int) -> bool:
        return False

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        raise RuntimeError("updates arrive in the server's process")

    def update(self, worker: int) -> WorkerUpdate:
        raise RuntimeError("updates arrive in the server's process")

    def load_codec(self, worker: int, state: State) -> None:
        """Takes the state of the worker's codec from a checkpoint; raises what ``load_checked`` does."""
        x = self.method.x
        state = {name: value.to(x.device) for name, value in state.items()}
        load_checked(self.codecs[worker], state, x.numel(), 1, dtype=x.dtype)

    def work(
        self,
        endpoint: WorkerEndpoint,
        item: WorkItem | None,
        checked: NonFiniteGuard,
        inject: bool,
        save: Callable[[State], None],
    ) -> None:
        """Works on the newest item, the first of which is ``item``, until the run is over. A method that ``overwrites``
        waits for the answer to a message no longer than its own work took, and then goes on from the item that it has.
        ``inject``: every message takes as long as on the virtual clock. ``save`` keeps the codec's state beside the
        server's checkpoints."""
        method, n, dtype = self.method, endpoint.world_rank - 1, self.method.x.dtype
        codec, cycle, busy = self.codecs[n], 0, 0.0
        while item is not None:
            begun, counted, cycle = time.monotonic(), checked.count, cycle + 1
            checked.round = item.version + 1
            method.take(n, item._replace(body=item.body.view(dtype).to(method.x.device)))
            seconds = self.clock.computing(n, cycle, method.gradients_for(n)) if inject else 0.0
            message = method.message(n)
            endpoint.sleep(begun + seconds - time.monotonic())
            if endpoint.over:
                return
            took = time.monotonic() - begun
            busy += took
            bad, fault = checked.count - counted, checked.fault
            kind = MESSAGE if fault is None else FAULT
            body = pack_frames(message, torch.ones(1))[0] if fault is None else as_text(fault.text())
            endpoint.send(kind, item, method.done[n], busy, bad, body)
            if item.save and codec.state_dict():
                save(dict(codec.state_dict()))
            item = endpoint.next(took) or item if method.overwrites and not endpoint.over else endpoint.next()
