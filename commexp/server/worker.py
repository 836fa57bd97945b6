"""A worker that has a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from commexp.algorithms.base import WorkerUpdate, WorkItem
from commexp.comm import pack_frames
from commexp.network import EventClock
from commexp.problems import NonFiniteGuard
from commexp.server.apart import Apart
from commexp.server.hub import FAULT, MESSAGE
from commexp.server.spoke import Given, Spoke
from commexp.state import load_checked

State = dict[str, Tensor]


class AtWorker(Apart):
    """A worker's process."""

    clock: EventClock

    def serve(self, worker: int, order: WorkItem, gradients: float, up: int) -> bool:
        return False

    def arrivals(self, every: Sequence[int] = ()) -> list[int]:
        raise RuntimeError("the server is elsewhere")

    def letter(self, worker: int) -> WorkerUpdate:
        raise RuntimeError("the server is elsewhere")

    def accept(self, worker: int, state: State) -> None:
        """Takes the state of the worker's codec from a checkpoint; raises what ``load_checked`` does."""
        x = self.method.x
        load_checked(self.codecs[worker], {k: v.to(x.device) for k, v in state.items()}, x.numel(), 1)

    def work(
        self,
        spoke: Spoke,
        given: Given | None,
        checked: NonFiniteGuard,
        inject: bool,
        save: Callable[[dict[str, Tensor]], None],
    ) -> None:
        """Works on the newest order, the first of which is ``given``, until it is over. A method whose messages may be
        overwritten does not wait for an answer longer than its own work took, and goes on from what it has. ``inject``:
        every message takes as long as on the virtual clock. ``save`` keeps the codec's state beside the server's
        checkpoints."""
        method, n, dtype = self.method, spoke.worker, self.method.x.dtype
        codec, cycle, busy = self.codecs[n], 0, 0.0
        while given is not None:
            begun, counted, cycle = time.monotonic(), checked.count, cycle + 1
            checked.round = given.version + 1
            body = given.body.view(dtype).to(method.x.device)
            method.take(n, WorkItem(body, given.version, given.heard, given.done, given.kind))
            seconds = self.clock.computing(n, cycle, method.gradients_for(n)) if inject else 0.0
            message = method.message(n)
            spoke.sleep(begun + seconds - time.monotonic())
            if spoke.over:
                break
            took = time.monotonic() - begun
            busy += took
            bad, said = checked.count - counted, (given, method.done[n], busy)
            if checked.fault is not None:
                spoke.say(FAULT, *said, bad, as_text(checked.fault.text()))
            else:
                spoke.say(MESSAGE, *said, bad, pack_frames(message, torch.ones(1))[0])
            if given.save and codec.state_dict():
                save(dict(codec.state_dict()))
            given = spoke.next(took) or given if method.overwrites and not spoke.over else spoke.next()
        spoke.end()


def as_text(text: str) -> Tensor:
    """For a message."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
