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

from commexp.comm import Communicator, Ledger, Links, Processes, exchange
from commexp.config import prepare
from commexp.launch.member import _join
from commexp.runner import execute

exchange.STRETCH = 500  # a small model's gradient, too, is sent in several stretches


def main() -> None:
    torch.set_num_threads(1)
    _join("gloo", 60)
    links = Processes(timedelta(seconds=60))
    for config in json.loads(Path(sys.argv[1]).read_text()):
        execute(prepare(OmegaConf.create(config)), torch.device("cpu"), links)
    save_file(gossiped(links), Path(sys.argv[1]).with_name(f"gossip-{links.rank}.safetensors"))


def gossiped(links: Links) -> dict[str, torch.Tensor]:
    """What this process's workers of eight have after gossip on a graph without symmetry, and the books of all."""
    ledger = Ledger()
    comm = Communicator(8, ledger, deterministic=True, links=links)
    x = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(0))[list(comm.worker_ids)]
    mixing = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    mixing = torch.where(mixing < 0.6, 0.0, mixing)
    found = comm.gossip(x, mixing)
    comm.settle()
    (entry,) = ledger.entries
    return {"x": found, "books": torch.tensor([entry.bytes_sent, entry.bytes_wire])}


if __name__ == "__main__":
    main()
