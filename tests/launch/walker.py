"""Groups of processes that carry out many runs, one after the other: python walker.py TASKS.json.

TASKS.json: ``configs``, and ``groups``, of each its ``processes``, a free ``port``, its ``folder`` and which configs
are its ``cases``. The plans are made once: the processes of every group are forks of the one that has made them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from commexp.comm import Communicator, Ledger, Links, Processes, communicator
from commexp.compressors import QSGD, CodecContext, Threshold, TopK
from commexp.config.plan import Plan, prepare
from commexp.experiment.execute import execute
from commexp.launch.member import PR_SET_PDEATHSIG, _join
from commexp.topologies import Exponential, Gossip, Ladder, Mixer, OnePeer


def main() -> None:
    tasks = json.loads(Path(sys.argv[1]).read_text())
    plans = [prepare(OmegaConf.create(config)) for config in tasks["configs"]]
    gc.freeze()
    for group in tasks["groups"]:
        together([plans[case] for case in group["cases"]], **group)


def together(plans: Sequence[Plan], processes: int, port: int, folder: str, per_worker: int = 1, **_: Any) -> None:
    """The plans, in so many processes, ``per_worker`` of them for each worker. All are ended when one fails, and then
    this process, too."""
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= shared
    started = set()
    for rank in range(processes):
        child = os.fork()
        if not child:
            walk(plans, rank, Path(folder), per_worker)
        started.add(child)
    while started:
        ended, status = os.wait()
        started.discard(ended)
        if status:
            for other in started:
                os.kill(other, signal.SIGKILL)
            sys.exit(f"of {processes} processes one ended with {os.waitstatus_to_exitcode(status)}")


def walk(plans: Sequence[Plan], rank: int, folder: Path, per_worker: int) -> None:
    """One of the processes."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.environ["RANK"] = str(rank)
        communicator.BUCKET = 500  # a small model's gradient, too, is sent in several buckets
        torch.set_num_threads(1)
        _join("gloo", 60)
        links = Processes(timedelta(seconds=60))
        for plan in plans:
            launch = dataclasses.replace(plan.config.launch, per_worker=per_worker)
            config = dataclasses.replace(plan.config, outputs=str(folder), launch=launch)
            here = dataclasses.replace(plan, config=config, resolved={**plan.resolved, "outputs": str(folder)})
            execute(here, torch.device("cpu"), links)
        save_file(gossiped(links), folder / f"gossip-{links.rank}.safetensors")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def gossiped(links: Links) -> dict[str, torch.Tensor]:
    """What this process's workers of eight have after gossip, of whole vectors on a graph without symmetry and of
    messages on a ladder, some of them of different lengths; and the books of all."""
    whole = torch.randn(8, 60, generator=torch.Generator().manual_seed(0))
    ragged = whole * torch.linspace(0.2, 2.0, 8)[:, None]  # beyond a threshold some have many entries, some none
    found = {}
    for name, x, topology, codec in (
        ("vectors", whole, Exponential(), None),
        ("one_peer", whole.view(8, 3, 20), OnePeer(), None),
        ("topk", whole, Ladder(), TopK(k=7)),
        ("qsgd", whole, Ladder(), QSGD()),
        ("elias", ragged, Ladder(failure=0.3), QSGD(coding="elias")),
        ("threshold", ragged, Ladder(), Threshold(t=1.0, adaptive=False)),
    ):
        ledger = Ledger()
        mixer = Mixer(topology, Gossip(rounds=1 if codec else 2), 8, 0)
        comm = Communicator(8, ledger, deterministic=True, links=links, mixer=mixer)
        own = x[list(comm.worker_ids)]
        if codec is not None:
            codec.setup(CodecContext(0, comm.worker_ids))
        for t in (1, 2):
            comm.begin_round(t)
            own = comm.gossip(own) if codec is None else comm.gossip_messages(codec.encode(own))
        comm.settle()
        found[name] = own.contiguous()
        books = [[e.round, e.repeats, e.bytes_sent, e.bytes_wire] for e in ledger.entries]
        found[f"{name}.books"] = torch.tensor(books)
    return found


if __name__ == "__main__":
    main()
