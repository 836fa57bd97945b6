"""One of several processes that carry out many runs, one after the other: python walker.py TASKS.json.

Started with torchrun's environment. Importing torch once for all runs is what makes the walk quick.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from commexp.comm import Communicator, Ledger, Links, Processes, communicator
from commexp.compressors import QSGD, CodecContext, Threshold, TopK
from commexp.config.plan import prepare
from commexp.experiment.execute import execute
from commexp.launch.member import _join
from commexp.topologies import Exponential, Gossip, Ladder, Mixer, OnePeer


def main() -> None:
    communicator.BUCKET = 500  # a small model's gradient, too, is sent in several buckets
    torch.set_num_threads(1)
    _join("gloo", 60)
    links = Processes(timedelta(seconds=60))
    for config in json.loads(Path(sys.argv[1]).read_text()):
        execute(prepare(OmegaConf.create(config)), torch.device("cpu"), links)
    save_file(gossiped(links), Path(sys.argv[1]).with_name(f"gossip-{links.rank}.safetensors"))


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
