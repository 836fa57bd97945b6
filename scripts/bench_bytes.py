"""bytes_wire compared with the kernel's counters, for every exchange among hosts with real links.

    python scripts/bench_bytes.py        # as root; needs ip and tc

Four namespaces with links of 1 Gbit/s (netlab.py), one worker in each. The kernel's counters include everything that
leaves a host: payload, TCP and IP headers, acknowledgements, and a few bytes of synchronisation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from netlab import NetLab, first_says

from commexp.comm import Communicator, Ledger, Processes
from commexp.compressors import FP16, CodecContext, Compressor, NoCompression, PowerSGD, Sign, Threshold, TopK
from commexp.metrics import human_bytes
from commexp.topologies import Gossip, Mixer, Ring

DIM, HOSTS, ROUNDS = 2_000_000, 4, 3
#: what is no sum over all
OTHERS: dict[str, Callable[[Communicator, Compressor, torch.Tensor], torch.Tensor]] = {
    "gossip": lambda comm, codec, x: comm.gossip(x),
    "messages": lambda comm, codec, x: comm.gossip_messages(codec.encode(x)),
    "broadcast": lambda comm, codec, x: comm.broadcast(x, 1),
    "gather": lambda comm, codec, x: comm.gather(x),
}
CASES: dict[str, tuple[str, Compressor]] = {
    "dense, all-reduce": ("all_reduce", NoCompression()),
    "fp16, all-reduce": ("all_reduce", FP16()),
    "PowerSGD rank 64, two all-reduces": ("all_reduce", PowerSGD(rank=64)),
    "Top-k 10 %, all-gather": ("all_gather", TopK(k=0.1)),
    "threshold (sizes differ), all-gather": ("all_gather", Threshold(t=0.2)),
    "dense, gossip on a ring, twice": ("gossip", NoCompression()),
    "Top-k 10 %, gossip on a ring": ("messages", TopK(k=0.1)),
    "threshold (sizes differ), gossip on a ring": ("messages", Threshold(t=0.2)),
    "dense, broadcast": ("broadcast", NoCompression()),
    "dense, gather": ("gather", NoCompression()),
    "dense, parameter server": ("server", NoCompression()),
    "Top-k 10 %, parameter server": ("server", TopK(k=0.1)),
    "Top-k 10 %, two-phase": ("two_phase", TopK(k=0.1)),
    "signs (8 M entries), two-phase": ("two_phase", Sign()),
}


def sent_by_kernel() -> int:
    return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())


def rank() -> None:
    """One worker: goes through all cases; rank 0 prints what the ledger and what the kernels counted."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    links = Processes(timedelta(seconds=120))
    weights = torch.full((1,), 1 / HOSTS)
    found = {}
    for name, (exchange, codec) in CASES.items():
        x = torch.randn(
            1, 4 * DIM if isinstance(codec, Sign) else DIM, generator=torch.Generator().manual_seed(links.rank)
        )
        codec.setup(CodecContext(worker_ids=[links.rank]))
        mixer = Mixer(Ring(), Gossip(rounds=2), HOSTS, 0)
        kind = "auto" if exchange in OTHERS else exchange
        comm = Communicator(HOSTS, Ledger(), kind, links=links, mixer=mixer)
        links.tell("")
        before = sent_by_kernel()
        for t in range(ROUNDS):
            comm.begin_round(t)
            if exchange in OTHERS:
                OTHERS[exchange](comm, codec, x)
            else:
                comm.begin(codec, weights, x.shape[1]).finish(x)
            comm.end_round()
        links.tell("")
        counted = int(links.agree(torch.tensor([sent_by_kernel() - before]))[0])
        comm.settle()
        smallest = min(e.bytes_sent for e in comm.ledger.entries) // HOSTS
        found[name] = (smallest, comm.ledger.bytes_wire, counted)
    if links.rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def main() -> int:
    if sys.argv[1:] == ["rank"]:
        rank()
        return 0
    found = first_says(NetLab(HOSTS, 1000.0), [sys.executable, __file__, "rank"], 300)
    heads = [f"{HOSTS} workers, {ROUNDS} rounds", "payload of one", "bytes_wire", "kernel", "ratio"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, (size, wire, counted) in found.items():
        print(f"| {name} | {human_bytes(size)} | {human_bytes(wire)} | {human_bytes(counted)} | {counted / wire:.4f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
