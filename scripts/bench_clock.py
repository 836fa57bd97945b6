"""The virtual clock against real links: what it says of an exchange among hosts on slow links, and what it takes.

    python scripts/bench_clock.py        # as root; needs ip and tc

Four namespaces joined by links of 100 Mbit/s (netlab.py), one worker in each; the median of seven rounds. What encoding
and decoding take of the two cores that all hosts share is measured, and the virtual clock counts it, too.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from netlab import NetLab, NetLabError

from commexp.books import busy
from commexp.comm import Communicator, Ledger, Processes
from commexp.compressors import Compressor, NoCompression, Setup, TopK
from commexp.network import Compute, Network, NoStragglers, VirtualClock
from commexp.topologies import Gossip, Mixer, Ring, Star

DIM, HOSTS, ROUNDS, BANDWIDTH = 2_000_000, 4, 7, 100.0
CASES: dict[str, tuple[str, Compressor]] = {
    "dense, all-reduce": ("all_reduce", NoCompression()),
    "Top-k 10 %, all-gather": ("all_gather", TopK(k=0.1)),
    "dense, parameter server": ("server", NoCompression()),
    "Top-k 10 %, parameter server": ("server", TopK(k=0.1)),
    "Top-k 10 %, two-phase": ("two_phase", TopK(k=0.1)),
    "dense, gossip on a ring": ("ring", NoCompression()),
    "dense, gossip on a star": ("star", NoCompression()),
    "Top-k 10 %, gossip on a ring": ("ring", TopK(k=0.1)),
}


def rank() -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    links = Processes(timedelta(seconds=120))
    network = Network(bandwidth=BANDWIDTH, latency=0.2, compute=Compute(kind="measured"))
    found = {}
    for name, (exchange, codec) in CASES.items():
        graph = {"ring": Ring(), "star": Star()}.get(exchange)
        mixer = None if graph is None else Mixer(graph, Gossip(), HOSTS, 0)
        comm = Communicator(HOSTS, Ledger(), "auto" if mixer else exchange, links=links, mixer=mixer)
        codec.setup(Setup(worker_ids=[links.rank]))
        x = torch.randn(1, DIM, generator=torch.Generator().manual_seed(links.rank))
        weights = torch.full((1,), 1 / HOSTS)
        message, walls = codec.encode(x), []
        for t in range(ROUNDS):
            comm.begin_round(t + 1)
            links.tell("")
            begin = time.perf_counter()
            if mixer is None:
                comm.aggregate(message, weights)
            elif isinstance(codec, NoCompression):
                comm.gossip(x)
            else:
                comm.gossip_messages(message)
            links.tell("")
            walls.append(time.perf_counter() - begin)
            comm.end_round()
        comm.settle()
        ends = mixer.mean_links[:2] if mixer else None
        clock, virtual = VirtualClock(network, NoStragglers(), HOSTS, 0, ends), []
        for t in range(1, ROUNDS + 1):
            booked, before = [e for e in comm.ledger.entries if e.round == t], clock.now
            clock.round(t, 0.0, booked, sum(map(busy, booked)))
            virtual.append(clock.now - before)
        found[name] = (statistics.median(virtual), statistics.median(walls))
    if links.rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def main() -> int:
    if sys.argv[1:] == ["rank"]:
        rank()
        return 0
    try:
        with NetLab(HOSTS, BANDWIDTH) as lab:
            ended = lab.run_everywhere([sys.executable, __file__, "rank"], timeout=300)
    except NetLabError as error:
        print(f"bench_clock: {error}", file=sys.stderr)
        return 2
    if any(e.returncode for e in ended):
        print(next(e.output for e in ended if e.returncode), file=sys.stderr)
        return 1
    found = json.loads(ended[0].output.splitlines()[-1])
    heads = [f"{HOSTS} hosts, {BANDWIDTH:g} Mbit/s", "virtual clock", "wall clock", "wall / virtual"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, (virtual, wall) in found.items():
        print(f"| {name} | {1e3 * virtual:.1f} ms | {1e3 * wall:.1f} ms | {wall / virtual:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
