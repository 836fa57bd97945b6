"""Three processes: a server with worker 0, worker 1 that answers at once, and worker 2 that does as the round says."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch

from commexp.comm import ClosingRule, Ledger, Processes, bundle, pack_frames
from commexp.compressors import Message, NoCompression
from commexp.launch.member import _join
from commexp.server.calling import CallingCommunicator
from commexp.server.endpoints import MESSAGE, ServerEndpoint, endpoint

CALLS = {0: "first", 1: "deadline", 2: "model", 3: "bad", 4: "lost"}  # one round each, and one between them


def message(rank: int, t: int) -> Message:
    return NoCompression().encode(torch.full((1, 4), 10.0**rank * (t + 1), dtype=torch.float64))


def serve(links: ServerEndpoint) -> None:
    told: list[tuple[int, str]] = []
    ledger = Ledger()
    comm = CallingCommunicator(
        lambda bad, fault: told.append((bad, fault)), workers=3, ledger=ledger, exchange="server", links=links
    )
    everyone, two = np.ones(3, dtype=bool), np.array([True, True, False])
    for t, name in CALLS.items():
        comm.begin_round(t + 1)
        comm.call(t, torch.arange(4.0) + t)
        expected = two if name == "model" else everyone
        closes = {"first": ClosingRule(2), "deadline": ClosingRule(deadline=0.5)}.get(name, ClosingRule())
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
    assert [(loss.rank, loss.round) for loss in links.losses] == [(2, 5)]
    links.end()


def main() -> None:
    _join("gloo", 60)
    group = Processes(timedelta(seconds=60))
    links = endpoint(group.rank, group.processes, 60, workers=3, asynchronous=False)
    if isinstance(links, ServerEndpoint):
        links.listen()
        serve(links)
        return
    links.connect()
    while (item := links.next()) is not None:
        t = item.version
        assert item.body.view(torch.float32).tolist() == [t, t + 1, t + 2, t + 3]
        frames = bundle(pack_frames(message(links.rank, t), torch.ones(1)))
        if links.rank == 1:
            links.send(MESSAGE, item, body=frames)
        elif CALLS[t] == "first":
            assert links.superseded(30), "the round is closed without this answer"
            links.send(MESSAGE, item, body=frames)  # and it comes in the next one
        elif CALLS[t] == "bad":
            links.send(MESSAGE, item, bad=3, body=frames)
        elif CALLS[t] == "lost":
            os._exit(0)  # without a word
    links.leave()


if __name__ == "__main__":
    main()
