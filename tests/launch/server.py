"""Three processes: a server with worker 0, worker 1 that answers at once, and worker 2 that does as the round says."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch

from commexp.comm import Ledger, Processes, bundle, pack_frames
from commexp.compressors import Message, NoCompression
from commexp.experiment.execute import apart
from commexp.launch.member import _join
from commexp.server.coordinator import Coordinator, Remote
from commexp.server.served import Served

CALLS = {0: "first", 1: "deadline", 2: "model", 3: "bad", 4: "lost"}  # one round each, and one between them


def message(rank: int, t: int) -> Message:
    return NoCompression().encode(torch.full((1, 4), 10.0**rank * (t + 1), dtype=torch.float64))


def serve(links: Coordinator) -> None:
    told: list[tuple[int, str]] = []
    ledger = Ledger()
    comm = Served(lambda bad, fault: told.append((bad, fault)), 3, ledger, "server", False, links)
    everyone, two = np.ones(3, dtype=bool), np.array([True, True, False])
    for t, name in CALLS.items():
        comm.begin_round(t + 1)
        comm.call(t, torch.arange(4.0) + t)
        expected = two if name == "model" else everyone
        closes = {"first": (2, None), "deadline": (None, 0.5)}.get(name, (None, None))
        found = comm.answers(message(0, t), expected, closes, lambda answered: answered / 2.0)
        comm.end_round()
        full = name == "bad"
        assert found.answered.tolist() == [True, True, full], name
        assert found.total.tolist() == [(1 + 10 + 100 * full) * (t + 1) / 2] * 4, name
        entries = {e.direction: e for e in comm.settle()}
        assert entries["up"].bytes_sent == (2 + full) * 32
        assert entries["up"].bytes_wire == (1 + full) * 32
        assert entries["up"].workers == 2 + full
        assert entries["down"].bytes_sent == 3 * 32
        print(name, flush=True)
    assert comm.dropped == 1, "the answer to round 0 that came in round 1"
    assert told == [(3, "")]
    assert links.lost == {2: 4}
    links.end()


def main() -> None:
    _join("gloo", 60)
    links = apart(Processes(timedelta(seconds=60)), asynchronous=False, workers=3)
    assert isinstance(links, Coordinator | Remote)
    links.listen()
    if isinstance(links, Coordinator):
        serve(links)
        return
    while (call := links.next()) is not None:
        t, body = call
        assert body.view(torch.float32).tolist() == [t, t + 1, t + 2, t + 3]
        frames = bundle(pack_frames(message(links.rank, t), torch.ones(1)))
        if links.rank == 1:
            links.answer(t, frames)
        elif CALLS[t] == "first":
            assert links.wait(30), "the round is closed without this answer"
            links.answer(t, frames)  # and it comes in the next one
        elif CALLS[t] == "deadline":
            links.answer(t)
        elif CALLS[t] == "bad":
            links.answer(t, frames, bad=3)
        elif CALLS[t] == "lost":
            os._exit(0)  # without a word
        else:
            links.answer(t)


if __name__ == "__main__":
    main()
